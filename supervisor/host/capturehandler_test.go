package host

import (
	"errors"
	"fmt"
	"syscall"
	"testing"

	"github.com/gracerun/grace/childproc"
)

func TestWhatPassesIsNoRefusalToCapture(t *testing.T) {
	for _, c := range []struct {
		err  error
		want bool
	}{
		{&childproc.StartError{Step: "seccomp", Errno: syscall.EPERM}, true},
		{&childproc.StartError{Step: "seccomp", Errno: syscall.EBUSY}, true},
		{&childproc.StartError{Step: "seccomp", Errno: syscall.ENOMEM}, false},
		{&childproc.StartError{Step: "seccomp", Errno: syscall.EMFILE}, false},
		{&childproc.StartError{Step: "exec", Errno: syscall.EPERM}, false},
		{fmt.Errorf("around: %w", &childproc.StartError{Step: "seccomp", Errno: syscall.EINVAL}), true},
		{errors.New("it ended"), false},
	} {
		if got := refused(c.err); got != c.want {
			t.Errorf("%v: %v", c.err, got)
		}
	}
}
