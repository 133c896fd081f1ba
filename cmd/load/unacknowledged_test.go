package load

import (
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A client that is slow finds the end of the connection when the reset of its request has come too, and with it nothing
// more to be acknowledged.
func TestLateLookAtAClosedConnection(t *testing.T) {
	ln, addr := listen(t, "tcp")
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	server, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	server.Close()
	awaitState(t, c, unix.BPF_TCP_CLOSE_WAIT)
	if _, err := c.Write([]byte("request")); err != nil {
		t.Fatal(err)
	}
	awaitState(t, c, unix.BPF_TCP_CLOSE)
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Fatalf("it ends with %v", err)
	}
	if !unacknowledged(c) {
		t.Error("the request is taken for one that the server has got")
	}
}

func awaitState(t *testing.T, c net.Conn, state uint8) {
	t.Helper()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	now := uint8(0)
	for deadline := time.Now().Add(patience); now != state; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the connection is in state %d, and not %d", now, state)
		}
		raw.Control(func(fd uintptr) {
			info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
			if err == nil {
				now = info.State
			}
		})
	}
}
