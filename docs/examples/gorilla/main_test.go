package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/gracerun/grace/drain"
)

// patience bounds every wait of the tests that only a defect makes long.
const patience = 30 * time.Second

// server is one that drains when the test says so.
type server struct {
	addr  string
	drain context.CancelFunc
	ended chan error
}

func serve(t *testing.T, handler http.Handler, opts ...drain.Option) *server {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &server{ln.Addr().String(), cancel, make(chan error, 1)}
	opts = append(opts, drain.Context(ctx), drain.Signals())
	go func() { s.ended <- drain.Serve(&http.Server{Handler: handler}, ln, opts...) }()
	t.Cleanup(cancel)
	return s
}

// end wants an error that contains a text, or none.
func (s *server) end(t *testing.T, want string) {
	t.Helper()
	select {
	case err := <-s.ended:
		if want == "" && err != nil || !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("it ended with %v, not %q", err, want)
		}
	case <-time.After(patience):
		t.Fatal("the server does not end")
	}
}

func dial(t *testing.T, s *server, path string) *websocket.Conn {
	t.Helper()
	dialer := websocket.Dialer{EnableCompression: true}
	conn, _, err := dialer.Dial("ws://"+s.addr+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetReadDeadline(time.Now().Add(patience))
	return conn
}

// mustBeTold reads the messages that come still.
func mustBeTold(t *testing.T, conn *websocket.Conn, valid func(message []byte) bool) {
	t.Helper()
	for {
		_, message, err := conn.ReadMessage()
		if err != nil {
			if !websocket.IsCloseError(err, websocket.CloseGoingAway) {
				t.Error(err)
			}
			conn.Close()
			return
		}
		if !valid(message) {
			t.Errorf("%.100q came, %d bytes", message, len(message))
		}
	}
}

func TestClientOfEchoIsTold(t *testing.T) {
	s := serve(t, routes())
	conn := dial(t, s, "/echo")
	if err := conn.WriteMessage(websocket.TextMessage, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, message, err := conn.ReadMessage(); string(message) != "hello" || err != nil {
		t.Fatalf("the echo is %q, %v", message, err)
	}
	s.drain()
	mustBeTold(t, conn, func([]byte) bool { return false })
	s.end(t, "")
}

func TestClientOfClockIsTold(t *testing.T) {
	s := serve(t, routes())
	conn := dial(t, s, "/clock")
	if _, _, err := conn.ReadMessage(); err != nil {
		t.Fatal(err)
	}
	s.drain()
	mustBeTold(t, conn, func(message []byte) bool {
		_, err := time.Parse(time.RFC3339Nano, string(message))
		return err == nil
	})
	s.end(t, "")
}

// chapter is larger than the library's buffer.
var chapter = bytes.Repeat([]byte("It was a dark and stormy night. "), 1000)

const chapters = 20

// stories are messages in fragments, without a pause.
func stories(upgrader websocket.Upgrader) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		conn, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer conn.Close()
		gone := make(chan struct{})
		go readToEnd(conn, gone)
		for tell(conn) == nil {
		}
		<-gone
	}
}

func tell(conn *websocket.Conn) error {
	w, err := conn.NextWriter(websocket.TextMessage)
	for n := 0; n < chapters && err == nil; n++ {
		_, err = w.Write(chapter)
	}
	if err != nil {
		return err
	}
	return w.Close()
}

func TestMessageInFragmentsIsWhole(t *testing.T) {
	for name, upgrader := range map[string]websocket.Upgrader{
		"plain":      {},
		"compressed": {EnableCompression: true},
		"buffered":   {WriteBufferSize: 1024, WriteBufferPool: &sync.Pool{}},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, stories(upgrader))
			conn := dial(t, s, "/")
			whole := func(message []byte) bool { return bytes.Equal(message, bytes.Repeat(chapter, chapters)) }
			if _, message, err := conn.ReadMessage(); err != nil || !whole(message) {
				t.Fatalf("%d bytes came, %v", len(message), err)
			}
			s.drain()
			mustBeTold(t, conn, whole)
			s.end(t, "")
		})
	}
}

// silent is a client that has opened a WebSocket, and then neither reads nor writes.
func silent(t *testing.T, s *server) *bufio.Reader {
	t.Helper()
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(conn, "GET /echo HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
	r := bufio.NewReader(conn)
	response, err := http.ReadResponse(r, nil)
	if err != nil || response.StatusCode != http.StatusSwitchingProtocols {
		t.Fatal(response, err)
	}
	return r
}

func TestClientThatDoesNotAnswerIsCut(t *testing.T) {
	s := serve(t, routes(), drain.Timeout(time.Second))
	r := silent(t, s)
	s.drain()
	s.end(t, "cannot end 1 hijacked connections")
	if b, err := io.ReadAll(r); string(b) != "\x88\x02\x03\xe9" || err != nil {
		t.Errorf("the client reads %q, %v", b, err)
	}
}

// A frame that is larger than all buffers on the way does not end before its client reads.
func TestClientThatDoesNotReadIsCut(t *testing.T) {
	s := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer conn.Close()
		conn.WriteMessage(websocket.BinaryMessage, make([]byte, 64<<20))
	}), drain.Timeout(time.Second))
	if _, err := silent(t, s).ReadByte(); err != nil {
		t.Fatal(err)
	}
	s.drain()
	s.end(t, "cannot end 1 hijacked connections")
}
