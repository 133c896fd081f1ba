package handoff

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestFreshListenersAreNotMultipath(t *testing.T) {
	ln, err := Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	control(ln, func(fd int) {
		if protocol, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL); protocol != unix.IPPROTO_TCP {
			t.Errorf("the protocol is %d, %v", protocol, err)
		}
	})
}
