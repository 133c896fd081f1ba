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

// Address is one on loopback at which nobody listens.
func Address(t testing.TB) string {
	t.Helper()
	return On(t, "127.0.0.1")
}

// On is Address for another host; "" stands for every address of the machine.
func On(t testing.TB, host string) string {
	t.Helper()
	addr, err := find(host)
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

func find(host string) (addr string, err error) {
	mutex.Lock()
	defer mutex.Unlock()
	if own == nil {
		if own, err = claim(); err != nil {
			return "", err
		}
	}
	for range size - 1 {
		addr = net.JoinHostPort(host, strconv.Itoa(own.next()))
		if err = try(addr); err == nil {
			return addr, nil
		}
	}
	return "", err
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

func try(addr string) error {
	config := net.ListenConfig{Control: withoutReuse}
	config.SetMultipathTCP(false)
	ln, err := config.Listen(context.Background(), "tcp", addr)
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
