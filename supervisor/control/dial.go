package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
)

// maxSocketPath is what a unix socket's address has room for (sun_path, less its NUL).
const maxSocketPath = 107

// shortPath gives a name by which a socket of any length of path can be bound or
// connected to, until release is called.
func shortPath(path string) (name string, release func(), err error) {
	if len(path) <= maxSocketPath {
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
	name, release, err := shortPath(path)
	if err != nil {
		return nil, err
	}
	defer release()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", name)
	if err != nil {
		return nil, err
	}
	if err := checkListener(conn.(*net.UnixConn), path); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// errOtherUser is the error for a socket at which another user listens than the one that owns it.
var errOtherUser = errors.New("another user listens there")

// checkListener takes root's word, this user's, and, as root, that of the user whose socket it is.
func checkListener(conn *net.UnixConn, path string) error {
	uid, _, err := credentials(conn)
	if err != nil {
		return fmt.Errorf("cannot identify the process that listens at %s: %w", path, err)
	}
	if uid == 0 || uid == os.Geteuid() {
		return nil
	}
	socket := Found{Path: path}
	if os.Geteuid() == 0 && socket.identify(map[fileID]bool{}) && socket.UID == uid {
		return nil
	}
	return fmt.Errorf("%w: user %d, at %s", errOtherUser, uid, path)
}
