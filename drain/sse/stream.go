package sse

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/gracerun/grace/drain"
)

// Stream is one response with events. Its methods may be called from any goroutine.
type Stream struct {
	lastEventID string
	o           options
	ctx         context.Context // run's
	cancel      context.CancelCauseFunc
	idle        *time.Timer // until the next heartbeat
	watching    sync.WaitGroup

	mu sync.Mutex // for the response
	w  http.ResponseWriter
	rc *http.ResponseController
}

func newStream(w http.ResponseWriter, r *http.Request, o options) *Stream {
	s := &Stream{
		lastEventID: lastEventID(r),
		o:           o,
		idle:        time.NewTimer(o.heartbeat),
		w:           w,
		rc:          http.NewResponseController(w),
	}
	s.ctx, s.cancel = context.WithCancelCause(r.Context())
	return s
}

func lastEventID(r *http.Request) string {
	if id := r.Header.Get("Last-Event-ID"); id != "" {
		return id
	}
	return r.URL.Query().Get("lastEventId")
}

// LastEventID is the ID of the last event that the client has seen, or "". A page can set it for its first stream with
// ?lastEventId= in the URL; the header Last-Event-ID, which the client sends when it reconnects, takes precedence. Both come
// from the client: check the ID.
func (s *Stream) LastEventID() string { return s.lastEventID }

// Send writes the event and flushes. It returns an error if the event is invalid, if the client cannot be
// reached, or if run's context is cancelled. After an invalid event the stream can still be used.
func (s *Stream) Send(e Event) error {
	frame, err := e.frame()
	if err != nil {
		return err
	}
	return s.send(frame)
}

func (s *Stream) send(frame []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return fmt.Errorf("cannot send the event: %w", context.Cause(s.ctx))
	}
	if len(frame) == 0 {
		return nil
	}
	return s.write(frame)
}

// open begins the response, and starts the goroutine that watches for the end and sends heartbeats. It reports whether run
// has to be called.
func (s *Stream) open(protocol int, ending <-chan struct{}) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	setHeader(s.w.Header(), protocol)
	s.w.WriteHeader(http.StatusOK)
	if closed(ending) {
		s.cancel(drain.ErrDraining)
		return false
	}
	s.watching.Go(func() { s.watch(ending) })
	return s.write(s.o.afterFailure.frame()) == nil
}

func setHeader(h http.Header, protocol int) {
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no")
	// Without this header the client would reconnect to this process. Over HTTP/2 it would be a GOAWAY for all
	// streams of the connection.
	if protocol == 1 {
		h.Set("Connection", "close")
	}
}

var keepAlive = []byte(": keep-alive\n\n")

func (s *Stream) watch(ending <-chan struct{}) {
	for {
		select {
		case <-s.idle.C:
			_ = s.send(keepAlive) // a failure cancels the context
		case <-ending:
			s.cancel(drain.ErrDraining)
			return
		case <-s.ctx.Done():
			return
		}
	}
}

var errEnded = errors.New("the stream has ended")

// close ends what open began, and writes Retry if the drain ended the stream. Nothing is written after it.
func (s *Stream) close() {
	s.cancel(errEnded)
	s.watching.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if errors.Is(context.Cause(s.ctx), drain.ErrDraining) {
		_ = s.write(s.o.afterDrain.frame()) // if it fails, the client uses its earlier time
	}
	s.idle.Stop()
	s.setWriteDeadline() // net/http still writes the end of the response
}

// write is called with mu held.
func (s *Stream) write(frame []byte) error {
	s.setWriteDeadline()
	_, err := s.w.Write(frame)
	if err == nil {
		err = s.rc.Flush()
	}
	if err != nil {
		err = fmt.Errorf("cannot reach the client: %w", err)
		s.cancel(err)
		return err
	}
	// Over HTTP/2 a deadline that passes between two messages would reset the stream.
	_ = s.rc.SetWriteDeadline(time.Time{})
	s.idle.Reset(s.o.heartbeat)
	return nil
}

// setWriteDeadline has no effect if the ResponseWriter does not support deadlines.
func (s *Stream) setWriteDeadline() { _ = s.rc.SetWriteDeadline(time.Now().Add(s.o.writeTimeout)) }
