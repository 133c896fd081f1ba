package childproc

import "golang.org/x/sys/unix"

// OpenExecutable opens a file for [Spec.Program]. It takes no right to read it (O_PATH), and the descriptor is the
// caller's, close-on-exec.
func OpenExecutable(path string) (int, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, startError("open", path, err)
	}
	return fd, nil
}
