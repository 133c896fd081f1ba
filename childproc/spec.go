package childproc

import (
	"golang.org/x/sys/unix"
)

// Spec is what one process is started with. Start reads it and keeps nothing.
type Spec struct {
	Path string // the executable, as execve takes it; /proc/self is not grace there, and not the app yet
	// Program, unless it is 0, is a descriptor of the executable, O_PATH is enough: it is executed whatever Path leads to.
	// It stays the caller's. A script cannot be executed so: its interpreter opens it by a path.
	Program int
	Args    []string // Args[0] is the name that the app sees
	Dir     string   // working directory; grace's own if empty
	Env     []string // the whole environment

	// PIDVars name variables that are set to the process's own pid.
	PIDVars []string

	// Stdin is a descriptor for fd 0, or -1 for /dev/null. Stdout and Stderr are descriptors for fd 1 and 2. Files[i]
	// becomes fd 3+i. All of them stay the caller's and may be close-on-exec.
	Stdin, Stdout, Stderr int
	Files                 []int

	Umask int // -1 leaves grace's own
	// Identity is whom the process runs as, in a session of its own; nil leaves grace's own user and session.
	Identity *Identity

	// Capture has grace asked about every bind and listen of the app; the process waits for [Process.Captured] before
	// it becomes the app. NoNewPrivs takes from the app the rights that setuid programs and file capabilities would
	// give it (PR_SET_NO_NEW_PRIVS); see [capture.NeedsNoNewPrivs].
	Capture, NoNewPrivs bool
	// CaptureUnlink has grace asked about every unlink, too, where it captures.
	CaptureUnlink bool
}

// Identity is a user with the groups its process gets.
type Identity struct {
	UID, GID int
	Groups   []int
}

// OpenExecutable opens a file for [Spec.Program]. It takes no right to read it (O_PATH), and the descriptor is the
// caller's, close-on-exec.
func OpenExecutable(path string) (int, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, startError("open", path, err)
	}
	return fd, nil
}
