package sockdiag

import (
	"net"
	"testing"

	"github.com/gracerun/grace/handoff/internal/apptest"
	"golang.org/x/sys/unix"
)

func TestAcceptor(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0", "[::]:0"} {
		t.Run(address, func(t *testing.T) {
			l, err := net.Listen("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			conn, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if inode, err := Acceptor(conn); inode != 0 || err != nil {
				t.Errorf("before accept: inode %d, %v", inode, err)
			}
			accepted, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer accepted.Close()
			if got, want := acceptedInode(t, conn), connInode(t, accepted); got != want {
				t.Errorf("got inode %d, accepted %d", got, want)
			}
		})
	}
}

func acceptedInode(t *testing.T, conn net.Conn) (inode uint64) {
	t.Helper()
	apptest.Eventually(t, "somebody has accepted", func() bool {
		var err error
		inode, err = Acceptor(conn)
		apptest.Must(t, err)
		return inode != 0
	})
	return inode
}

func connInode(t *testing.T, conn net.Conn) uint64 {
	t.Helper()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var stat unix.Stat_t
	if err := raw.Control(func(fd uintptr) { err = unix.Fstat(int(fd), &stat) }); err != nil {
		t.Fatal(err)
	}
	return stat.Ino
}
