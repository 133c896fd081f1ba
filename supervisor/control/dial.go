package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
)

// longest is what a unix socket's address has room for (sun_path, less its NUL).
const longest = 107

// reachable gives a name by which a socket of any length of path can be bound or
// connected to, until release is called.
func reachable(path string) (name string, release func(), err error) {
	if len(path) <= longest {
		return path, func() {}, nil
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return "", nil, err
	}
	name = fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path))
	return name, func() { dir.Close() }, nil
}

func dial(ctx context.Context, path string) (net.Conn, error) {
	name, release, err := reachable(path)
	if err != nil {
		return nil, err
	}
	defer release()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", name)
	if err != nil {
		return nil, err
	}
	if err := trust(conn.(*net.UnixConn), path); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// errStranger is of a socket that somebody else listens at than whose grace it looks like.
var errStranger = errors.New("another user listens there")

// trust takes root's word, this user's, and, as root, that of the user whose socket it is.
func trust(conn *net.UnixConn, path string) error {
	uid, _, err := credentials(conn)
	if err != nil {
		return fmt.Errorf("cannot identify the process that listens at %s: %w", path, err)
	}
	if uid == 0 || uid == os.Geteuid() {
		return nil
	}
	socket := Found{Path: path}
	if os.Geteuid() == 0 && socket.identify(map[file]bool{}) && socket.UID == uid {
		return nil
	}
	return fmt.Errorf("%w: user %d, at %s", errStranger, uid, path)
}
