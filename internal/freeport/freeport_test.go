package freeport

import (
	"io"
	"net"
	"testing"
)

func TestNobodyElseHasTheBlock(t *testing.T) {
	one, err := claim()
	if err != nil {
		t.Fatal(err)
	}
	defer one.mark.Close()
	if again, err := net.Listen("tcp", one.mark.Addr().String()); err == nil {
		again.Close()
		t.Error("it can be claimed again")
	}
	for range 2 * size {
		if port := one.next(); port <= one.first || port >= one.first+size {
			t.Fatalf("%d is no port of the block that begins at %d", port, one.first)
		}
	}
}

// A server that ends its connections first leaves them in TIME_WAIT, where one without SO_REUSEADDR cannot follow it.
func TestPortOfAnEndedConnectionIsNotFree(t *testing.T) {
	ln, err := net.Listen("tcp", Address(t))
	if err != nil {
		t.Fatal(err)
	}
	client, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	server.Close()
	if _, err := io.ReadAll(client); err != nil {
		t.Fatal(err)
	}
	ln.Close()
	port := ln.Addr().(*net.TCPAddr).Port
	if try(port) == nil {
		t.Errorf("%d is said to be free", port)
	}
}
