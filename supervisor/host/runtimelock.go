package host

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// lockDir opens a directory and locks it, if nobody else has.
func lockDir(path string) (int, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("cannot open the runtime directory %s: %w", path, err)
	}
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		unix.Close(fd)
		return 0, fmt.Errorf("cannot lock the runtime directory %s: %w", path, err)
	}
	return fd, nil
}

// relock locks a directory that was made again, by the descriptor which had the one before.
func (d RuntimeDir) relock() error {
	if d.Lock == 0 {
		return nil
	}
	fd, err := lockDir(d.Path)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Dup3(fd, d.Lock, unix.O_CLOEXEC)
}
