package control

import (
	"context"
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
	return new(net.Dialer).DialContext(ctx, "unix", name)
}
