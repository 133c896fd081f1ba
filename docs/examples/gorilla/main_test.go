package main

import (
	"bytes"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/gracerun/grace/docs/examples/internal/server"
	"github.com/gracerun/grace/drain"
)

const patience = server.Patience

func dial(t *testing.T, s *server.Server, path string) *websocket.Conn {
	t.Helper()
	dialer := websocket.Dialer{EnableCompression: true}
	conn, _, err := dialer.Dial("ws://"+s.Addr+path, nil)
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
	s := server.Serve(t, routes())
	conn := dial(t, s, "/echo")
	if err := conn.WriteMessage(websocket.TextMessage, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, message, err := conn.ReadMessage(); string(message) != "hello" || err != nil {
		t.Fatalf("the echo is %q, %v", message, err)
	}
	s.Drain()
	mustBeTold(t, conn, func([]byte) bool { return false })
	s.End(t, "")
}

func TestClientOfClockIsTold(t *testing.T) {
	s := server.Serve(t, routes())
	conn := dial(t, s, "/clock")
	if _, _, err := conn.ReadMessage(); err != nil {
		t.Fatal(err)
	}
	s.Drain()
	mustBeTold(t, conn, func(message []byte) bool {
		_, err := time.Parse(time.RFC3339Nano, string(message))
		return err == nil
	})
	s.End(t, "")
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
			s := server.Serve(t, stories(upgrader))
			conn := dial(t, s, "/")
			whole := func(message []byte) bool { return bytes.Equal(message, bytes.Repeat(chapter, chapters)) }
			if _, message, err := conn.ReadMessage(); err != nil || !whole(message) {
				t.Fatalf("%d bytes came, %v", len(message), err)
			}
			s.Drain()
			mustBeTold(t, conn, whole)
			s.End(t, "")
		})
	}
}

func TestClientThatDoesNotAnswerIsCut(t *testing.T) {
	s := server.Serve(t, routes(), drain.Timeout(time.Second))
	r := s.OpenSilently(t, "/echo")
	s.Drain()
	s.End(t, "cannot end hijacked connections: cut connections (1): the timeout of 1s has expired")
	if b, err := io.ReadAll(r); string(b) != "\x88\x02\x03\xe9" || err != nil {
		t.Errorf("the client reads %q, %v", b, err)
	}
}

// A frame that is larger than all buffers on the way does not end before its client reads.
func TestClientThatDoesNotReadIsCut(t *testing.T) {
	s := server.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer conn.Close()
		conn.WriteMessage(websocket.BinaryMessage, make([]byte, 64<<20))
	}), drain.Timeout(time.Second))
	if _, err := s.OpenSilently(t, "/echo").ReadByte(); err != nil {
		t.Fatal(err)
	}
	s.Drain()
	s.End(t, "cannot end hijacked connections: cut connections (1): the timeout of 1s has expired")
}
