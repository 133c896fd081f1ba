package drain

import (
	"errors"
	"os"
	"syscall"
	"testing"
)

// A supervisor that does not read must not hold up the drain.
func TestSlowSupervisorIsNotWaitedFor(t *testing.T) {
	notify := notifySocket(t)
	fillQueue(t, os.Getenv("NOTIFY_SOCKET"))
	d, _ := newQuiet()
	d.Drain()
	receive(t, d.Done())
	if len(d.notifying) == 0 {
		t.Error("the message has found room: the test shows nothing")
	}
	d.notify()
	for buffer := make([]byte, 100); ; {
		n, err := notify.Read(buffer)
		if err != nil {
			t.Fatal(err)
		}
		if string(buffer[:n]) == "STATUS=draining, 0 in flight" {
			return
		}
	}
}

func fillQueue(t *testing.T, path string) {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_DGRAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	for err == nil {
		err = syscall.Sendto(fd, []byte("full"), 0, &syscall.SockaddrUnix{Name: path})
	}
	if !errors.Is(err, syscall.EAGAIN) {
		t.Fatal(err)
	}
}
