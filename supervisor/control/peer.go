package control

import (
	"context"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

type peerKey struct{}

// peer is who has connected.
type peer struct {
	uid    int
	failed error
}

// withPeer asks the kernel who a connection is from, once.
func withPeer(ctx context.Context, c net.Conn) context.Context {
	p := peer{uid: -1, failed: fmt.Errorf("not a unix socket")}
	if limited, ok := c.(*limitedConn); ok {
		c = limited.Conn
	}
	if c, ok := c.(*net.UnixConn); ok {
		p.uid, _, p.failed = credentials(c)
	}
	return context.WithValue(ctx, peerKey{}, p)
}

// refusalOf says why a request is not answered, or nothing.
func refusalOf(ctx context.Context) string {
	p, _ := ctx.Value(peerKey{}).(peer)
	switch {
	case p.failed != nil:
		return fmt.Sprintf("cannot identify the client: %v", p.failed)
	case p.uid == 0 || p.uid == os.Geteuid():
		return ""
	}
	return fmt.Sprintf("user %d may not control a grace process of user %d (only that user and root may)", p.uid, os.Geteuid())
}

// credentials are of the process that has connected, or, at a client, of the one that
// listens.
func credentials(c *net.UnixConn) (uid, pid int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return -1, 0, err
	}
	var found *unix.Ucred
	if broken := raw.Control(func(fd uintptr) {
		found, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); broken != nil {
		return -1, 0, broken
	}
	if err != nil {
		return -1, 0, err
	}
	return int(found.Uid), int(found.Pid), nil
}
