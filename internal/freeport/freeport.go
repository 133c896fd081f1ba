// Package freeport finds addresses for servers that tests start.
package freeport

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"testing"
)

// The ports below those that the kernel gives to clients (net.ipv4.ip_local_port_range begins at 32768): one that is
// free now is not taken by a connection that some other test opens before the server comes.
const (
	lowest = 10000
	ports  = 22000
)

// next goes round, so that two tests of a process do not find the same one; others begin elsewhere.
var next atomic.Uint32

func init() { next.Store(rand.Uint32N(ports)) }

// Address is one on loopback; at its port nobody listens, on any address.
func Address(t testing.TB) string {
	t.Helper()
	addr, err := Find()
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

// Find is Address for what is not a test, such as TestMain.
func Find() (addr string, err error) {
	for range ports {
		port := lowest + next.Add(1)%ports
		ln, failed := net.Listen("tcp", fmt.Sprintf(":%d", port))
		if failed == nil {
			return fmt.Sprintf("127.0.0.1:%d", port), ln.Close()
		}
		err = failed
	}
	return "", err
}
