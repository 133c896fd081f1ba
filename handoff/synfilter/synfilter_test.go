package synfilter

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestFilter(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(fd)
	must(t, unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	must(t, unix.Listen(fd, 1))
	for range 2 {
		if Of(fd) != None || !arrives(t, fd) {
			t.Fatalf("without a filter: kind %d", Of(fd))
		}
		for range 2 {
			if !Attach(fd) || Of(fd) != Own || arrives(t, fd) {
				t.Fatalf("with it: kind %d", Of(fd))
			}
		}
		for range 2 {
			must(t, Detach(fd))
		}
	}
}

func TestFilterOfAnother(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(fd)
	all := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0xffffffff}
	longer := make([]unix.SockFilter, len(program)+1)
	for i := range longer {
		longer[i] = all
	}
	for _, filter := range [][]unix.SockFilter{{all}, longer} {
		must(t, unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}))
		must(t, Detach(fd))
		if Attach(fd) || Of(fd) != Foreign {
			t.Errorf("of %d instructions it is taken for kind %d", len(filter), Of(fd))
		}
	}
}

// arrives tells whether a connection to the listener is made within a moment. What waits in its queue is taken out.
func arrives(t *testing.T, listener int) bool {
	t.Helper()
	at, err := unix.Getsockname(listener)
	must(t, err)
	client, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	must(t, err)
	defer unix.Close(client)
	if err := unix.Connect(client, at); err != nil && err != unix.EINPROGRESS {
		t.Fatal(err)
	}
	const moment = 100 * time.Millisecond
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(listener), Events: unix.POLLIN}}, int(moment.Milliseconds()))
	must(t, err)
	if n == 0 {
		return false
	}
	accepted, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
	must(t, err)
	must(t, unix.Close(accepted))
	return true
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
