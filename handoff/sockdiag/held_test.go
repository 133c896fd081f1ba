package sockdiag

import (
	"net"
	"os"
	"strings"
	"testing"

	"github.com/gracerun/grace/handoff/internal/apptest"
)

// heldListener is a socket as grace holds them.
type heldListener struct {
	file           *os.File
	network, bound string
}

func (l *heldListener) FD() int         { return int(l.file.Fd()) }
func (l *heldListener) Network() string { return l.network }
func (l *heldListener) Bound() string   { return l.bound }
func (l *heldListener) Stream() bool    { return !strings.HasPrefix(l.network, "udp") }

// listenAt binds "network://address", or an address of TCP's, until the end of the test, and listens on what can.
func listenAt(t *testing.T, written string) *heldListener {
	t.Helper()
	network, addr, ok := strings.Cut(written, "://")
	if !ok {
		network, addr = "tcp", written
	}
	opened, bound := open(t, network, addr)
	file, err := opened.File()
	apptest.Must(t, err)
	t.Cleanup(func() { file.Close() })
	apptest.Must(t, opened.Close())
	return &heldListener{file, network, bound.String()}
}

// fileSocket is what package net has for a socket.
type fileSocket interface {
	File() (*os.File, error)
	Close() error
}

func open(t *testing.T, network, addr string) (fileSocket, net.Addr) {
	t.Helper()
	if strings.HasPrefix(network, "udp") {
		conn, err := net.ListenPacket(network, addr)
		apptest.Must(t, err)
		return conn.(fileSocket), conn.LocalAddr()
	}
	var config net.ListenConfig
	config.SetMultipathTCP(false)
	ln, err := config.Listen(t.Context(), network, addr)
	apptest.Must(t, err)
	if ln, ok := ln.(*net.UnixListener); ok {
		ln.SetUnlinkOnClose(false)
	}
	return ln.(fileSocket), ln.Addr()
}
