package apptest

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// AcceptNext wants the client to be the next that is accepted from the listening socket.
func AcceptNext(t *testing.T, listener int, client net.Conn) {
	t.Helper()
	fd, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
	Must(t, err)
	defer unix.Close(fd)
	_, err = unix.Write(fd, []byte("x"))
	Must(t, err)
	if n, err := client.Read(make([]byte, 1)); n != 1 {
		t.Errorf("another one was accepted: %v", err)
	}
}
