package sse

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
)

// Broadcast sends the same events to any number of clients. The zero value is ready to use. Set the fields before the first
// use. All methods may be called from any goroutine. A Broadcast is an http.Handler:
//
//	mux.Handle("/news", news)
//	mux.Handle("/progress", sse.Handler(progress.Stream, sse.Finish()))
//
// A new client gets the events that are published from then on. A client that reconnects first gets the events that it has
// missed, each once and in order. A client that reads slowly delays nobody: when it is behind by more than the
// History, its stream ends, and it reconnects.
type Broadcast struct {
	// History is the number of events that are kept for clients that reconnect or read slowly; 0 means 256.
	History int

	// From returns the events after the one with this ID, the oldest first. It is called when the History does not reach
	// back that far or does not know the ID. It reads a store that all processes share, so that no event is lost or sent
	// twice while one process replaces another. Therefore each event must have an ID, must be in the store before it is
	// published, and must be published by each process in the order of the store. From may return a part of the events, and
	// is then called again; an empty result means that there are no more so far. It must not call Publish. The ID comes
	// from the client: check it.
	From func(ctx context.Context, lastID string) ([]Event, error)

	// Start is used with From: the ID of the event before the first one that this process publishes. It is the position of
	// a client that connects before the first event.
	Start string

	// Lost is used without From: it is sent to a client whose last event is not in the History, before all events of the
	// History. The page can then reload its state. The zero Lost is not sent.
	Lost Event

	mu      sync.Mutex
	epoch   string
	count   int
	entries []entry
	changed chan struct{} // closed and replaced at each event
}

// entry is a published event, or Start. Of the first entry only the ID is used: it is the position before the history.
type entry struct {
	id    string
	frame []byte
}

const defaultHistory = 256

// Publish sends the event to all clients and does not wait for them. An event without an ID gets one that no other
// process uses; with From it is an error.
func (b *Broadcast) Publish(e Event) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.begin()
	if e.ID == "" {
		if b.From != nil {
			return errors.New("cannot publish the event: it has no ID, by which From would know it")
		}
		b.count++
		e.ID = b.number()
	}
	frame, err := e.frame()
	if err != nil {
		return err
	}
	b.add(entry{e.ID, frame})
	return nil
}

// begin initialises the fields at the first use. It, number and add are called with mu held.
func (b *Broadcast) begin() {
	if b.changed != nil {
		return
	}
	b.changed = make(chan struct{})
	b.epoch = strconv.FormatUint(rand.Uint64(), 36)
	if b.History <= 0 {
		b.History = defaultHistory
	}
	if b.From == nil {
		b.Start = b.number()
	}
	b.entries = []entry{{id: b.Start}}
}

// number begins with a random part, because the next process would use the same numbers.
func (b *Broadcast) number() string { return b.epoch + "-" + strconv.Itoa(b.count) }

// add does not change elements that after may have returned.
func (b *Broadcast) add(e entry) {
	b.entries = append(b.entries, e)
	if surplus := len(b.entries) - (b.History + 1); surplus > 0 {
		b.entries = b.entries[surplus:]
	}
	close(b.changed)
	b.changed = make(chan struct{})
}

// ServeHTTP sends the events to one client, as Handler(b.Stream) does.
func (b *Broadcast) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	Handler(b.Stream).ServeHTTP(w, r)
}

// Stream sends the events to one client until the drain ends the stream, or the client leaves or is too slow. Pass it to
// Handler to set options, or call it in a function that first sends something else.
func (b *Broadcast) Stream(s *Stream, r *http.Request) error {
	last, err := b.startingPoint(s)
	for err == nil {
		last, err = b.sendNext(r.Context(), s, last)
	}
	return err
}

// startingPoint returns the ID of the last event that the client has.
func (b *Broadcast) startingPoint(s *Stream) (last string, err error) {
	all, _ := b.history()
	newest := all[len(all)-1].id
	switch last = s.LastEventID(); {
	case last == "":
		return newest, s.Send(Event{ID: newest}) // so that the client misses no event if it leaves before the first one
	case b.From != nil || find(all, last) >= 0:
		return last, nil
	}
	if err := s.Send(b.Lost); err != nil {
		return "", err
	}
	return sendAll(s, newest, all[1:])
}

// sendNext sends the events after the last one, or waits until there may be some.
func (b *Broadcast) sendNext(ctx context.Context, s *Stream, last string) (string, error) {
	all, changed := b.history()
	after, err := b.after(ctx, all, last)
	if err != nil {
		return last, err
	}
	if len(after) > 0 {
		return sendAll(s, last, after)
	}
	select {
	case <-changed:
		return last, nil
	case <-ctx.Done():
		return last, context.Cause(ctx)
	}
}

// history returns at least the entry for the position before the history.
func (b *Broadcast) history() (all []entry, changed <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.begin()
	return b.entries, b.changed
}

func (b *Broadcast) after(ctx context.Context, all []entry, last string) ([]entry, error) {
	if at := find(all, last); at >= 0 {
		return all[at+1:], nil
	}
	if b.From == nil || last == "" {
		return nil, errors.New("the client is too slow: it is behind by more events than the History has")
	}
	events, err := b.From(ctx, last)
	if err != nil {
		return nil, fmt.Errorf("cannot get the events after %q: %w", last, err)
	}
	return frames(events)
}

// find starts with the newest entry, because most clients have that or the one before.
func find(entries []entry, id string) int {
	for i := len(entries) - 1; i >= 0; i-- {
		if entries[i].id == id {
			return i
		}
	}
	return -1
}

func frames(events []Event) ([]entry, error) {
	entries := make([]entry, 0, len(events))
	for _, e := range events {
		if e.ID == "" {
			return nil, errors.New("cannot send an event from the store: it has no ID")
		}
		frame, err := e.frame()
		if err != nil {
			return nil, err
		}
		entries = append(entries, entry{e.ID, frame})
	}
	return entries, nil
}

func sendAll(s *Stream, last string, entries []entry) (string, error) {
	for _, e := range entries {
		if err := s.send(e.frame); err != nil {
			return last, err
		}
		last = e.id
	}
	return last, nil
}
