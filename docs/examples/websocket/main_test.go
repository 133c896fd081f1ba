package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/gracerun/grace/docs/examples/internal/server"
	"github.com/gracerun/grace/drain"
)

const patience = server.Patience

func dial(t *testing.T, s *server.Server, path string) (context.Context, *websocket.Conn) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	options := &websocket.DialOptions{CompressionMode: websocket.CompressionContextTakeover}
	conn, _, err := websocket.Dial(ctx, "ws://"+s.Addr+path, options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.CloseNow() })
	conn.SetReadLimit(-1)
	return ctx, conn
}

// mustBeTold reads the messages that come still.
func mustBeTold(t *testing.T, ctx context.Context, conn *websocket.Conn, valid func(message []byte) bool) {
	t.Helper()
	for {
		_, message, err := conn.Read(ctx)
		if err != nil {
			if websocket.CloseStatus(err) != websocket.StatusGoingAway {
				t.Error(err)
			}
			return
		}
		if !valid(message) {
			t.Errorf("%.100q came, %d bytes", message, len(message))
		}
	}
}

func TestClientOfEchoIsTold(t *testing.T) {
	s := server.Serve(t, routes())
	ctx, conn := dial(t, s, "/echo")
	if err := conn.Write(ctx, websocket.MessageText, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, message, err := conn.Read(ctx); string(message) != "hello" || err != nil {
		t.Fatalf("the echo is %q, %v", message, err)
	}
	s.Drain()
	mustBeTold(t, ctx, conn, func([]byte) bool { return false })
	s.End(t, "")
}

func TestClientOfClockIsTold(t *testing.T) {
	s := server.Serve(t, routes())
	ctx, conn := dial(t, s, "/clock")
	if _, _, err := conn.Read(ctx); err != nil {
		t.Fatal(err)
	}
	s.Drain()
	mustBeTold(t, ctx, conn, func(message []byte) bool {
		_, err := time.Parse(time.RFC3339Nano, string(message))
		return err == nil
	})
	s.End(t, "")
}

// chapter is larger than the library's buffer.
var chapter = bytes.Repeat([]byte("It was a dark and stormy night. "), 1000)

const chapters = 20

// stories are messages in fragments, without a pause.
func stories(mode websocket.CompressionMode) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{CompressionMode: mode})
		if err != nil {
			return
		}
		defer conn.CloseNow()
		ctx := conn.CloseRead(r.Context())
		for tell(ctx, conn) == nil {
		}
	}
}

func tell(ctx context.Context, conn *websocket.Conn) error {
	w, err := conn.Writer(ctx, websocket.MessageText)
	for n := 0; n < chapters && err == nil; n++ {
		_, err = w.Write(chapter)
	}
	if err != nil {
		return err
	}
	return w.Close()
}

func TestMessageInFragmentsIsWhole(t *testing.T) {
	for name, mode := range map[string]websocket.CompressionMode{
		"plain":      websocket.CompressionDisabled,
		"compressed": websocket.CompressionContextTakeover,
	} {
		t.Run(name, func(t *testing.T) {
			s := server.Serve(t, stories(mode))
			ctx, conn := dial(t, s, "/")
			whole := func(message []byte) bool { return bytes.Equal(message, bytes.Repeat(chapter, chapters)) }
			if _, message, err := conn.Read(ctx); err != nil || !whole(message) {
				t.Fatalf("%d bytes came, %v", len(message), err)
			}
			s.Drain()
			mustBeTold(t, ctx, conn, whole)
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
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer conn.CloseNow()
		conn.Write(conn.CloseRead(r.Context()), websocket.MessageBinary, make([]byte, 64<<20))
	}), drain.Timeout(time.Second))
	if _, err := s.OpenSilently(t, "/echo").ReadByte(); err != nil {
		t.Fatal(err)
	}
	s.Drain()
	s.End(t, "cannot end hijacked connections: cut connections (1): the timeout of 1s has expired")
}
