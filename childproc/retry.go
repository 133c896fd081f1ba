package childproc

import (
	"errors"
	"slices"
	"syscall"
	"time"
)

// Shortage reports whether something failed because descriptors, processes, memory or room on a disk were short. That
// passes.
func Shortage(err error) bool {
	short := []syscall.Errno{
		syscall.EAGAIN, syscall.ENOMEM, syscall.EMFILE, syscall.ENFILE, syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.ENOBUFS,
	}
	return slices.ContainsFunc(short, func(errno syscall.Errno) bool { return errors.Is(err, errno) })
}

// retryAfter is the pause between two tries: short for the app, and long enough for a machine that is short of something.
const retryAfter = 100 * time.Millisecond

// Retry calls do again while it fails because of a Shortage, and gives ErrStopped if stop is closed meanwhile: a look
// that was not possible must not be taken for one that has found nothing.
func Retry(stop <-chan struct{}, do func() error) error {
	for {
		err := do()
		if !Shortage(err) {
			return err
		}
		select {
		case <-stop:
			return ErrStopped
		case <-time.After(retryAfter):
		}
	}
}
