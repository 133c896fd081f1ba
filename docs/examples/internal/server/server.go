// Package server serves in the process of a test, which says when it drains.
package server

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gracerun/grace/drain"
)

// Patience bounds every wait of the tests that only a defect makes long.
const Patience = 2 * time.Minute

// Server is one that drains when the test says so, or at its end.
type Server struct {
	Addr  string
	Drain func()
	ended chan error
}

func Serve(t *testing.T, handler http.Handler, opts ...drain.Option) *Server {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	s := &Server{ln.Addr().String(), cancel, make(chan error, 1)}
	opts = append(opts, drain.Context(ctx), drain.Signals())
	go func() { s.ended <- drain.Serve(&http.Server{Handler: handler}, ln, opts...) }()
	return s
}

// End waits for the end of the drain, and wants an error that contains a text, or none.
func (s *Server) End(t *testing.T, want string) {
	t.Helper()
	select {
	case err := <-s.ended:
		if want == "" && err != nil || !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("it ended with %v, not %q", err, want)
		}
	case <-time.After(Patience):
		t.Fatal("the server does not end")
	}
}

// OpenSilently is a client that opens a WebSocket, and then neither reads nor writes. The reader gives what the server
// sends.
func (s *Server) OpenSilently(t *testing.T, path string) *bufio.Reader {
	t.Helper()
	conn, err := net.Dial("tcp", s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(Patience))
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n", path)
	r := bufio.NewReader(conn)
	response, err := http.ReadResponse(r, nil)
	if err != nil || response.StatusCode != http.StatusSwitchingProtocols {
		t.Fatal(response, err)
	}
	return r
}
