// Package freeport finds addresses for servers that tests start.
package freeport

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"syscall"
	"testing"
)

// The ports below those that the kernel gives to clients (net.ipv4.ip_local_port_range begins at 32768): one that is
// free now is not taken by a connection that some other test opens before the server comes. Each process has a block of
// them for itself, so that it is not taken by a server of another package's tests either.
const (
	lowest = 10000
	blocks = 110
	size   = 200
)

// block is what a process has of the ports.
type block struct {
	mark  net.Listener // at the first port, for as long as the process lives
	first int
	last  int // that was found
}

var (
	mutex sync.Mutex
	own   *block
)

// Address is one on loopback; at its port nobody listens, on any address.
func Address(t testing.TB) string {
	t.Helper()
	return On(t, "127.0.0.1")
}

// On is Address for another host.
func On(t testing.TB, host string) string {
	t.Helper()
	port, err := find()
	if err != nil {
		t.Fatal(err)
	}
	return net.JoinHostPort(host, strconv.Itoa(port))
}

func find() (port int, err error) {
	mutex.Lock()
	defer mutex.Unlock()
	if own == nil {
		if own, err = claim(); err != nil {
			return 0, err
		}
	}
	for range size - 1 {
		port = own.next()
		if err = try(port); err == nil {
			return port, nil
		}
	}
	return 0, err
}

func claim() (*block, error) {
	for _, n := range rand.Perm(blocks) {
		b := &block{first: lowest + n*size}
		var err error
		if b.mark, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", b.first)); err == nil {
			return b, nil
		}
	}
	return nil, errors.New("other processes have all ports for tests")
}

func (b *block) next() int {
	b.last = 1 + b.last%(size-1)
	return b.first + b.last
}

func try(port int) error {
	config := net.ListenConfig{Control: withoutReuse}
	config.SetMultipathTCP(false)
	ln, err := config.Listen(context.Background(), "tcp", fmt.Sprintf(":%d", port))
	if err != nil {
		return err
	}
	return ln.Close()
}

// withoutReuse has a port in use while an ended connection of it lingers: not every server sets SO_REUSEADDR.
func withoutReuse(_, _ string, conn syscall.RawConn) error {
	var failed error
	err := conn.Control(func(fd uintptr) {
		failed = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 0)
	})
	return errors.Join(err, failed)
}
