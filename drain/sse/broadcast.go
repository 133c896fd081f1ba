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

// Broadcast sends the same events to any number of clients. The zero value is ready; the fields are set before it is
// used. It is a handler itself:
//
//	mux.Handle("/news", news)
//	mux.Handle("/progress", sse.Handler(progress.Stream, sse.Finish()))
//
// A client that comes for the first time gets what is published from then on. One that comes back gets what it missed
// first, each event once, in order. Nobody waits for a client that reads slowly: when it is behind by more than the
// History, its stream ends, and it comes back as any other.
type Broadcast struct {
	// History is how many events are kept for clients that come back and for those that read slowly; 256 if it is 0.
	History int

	// From returns the events after the one with this ID, the oldest first, where the History does not reach back so
	// far or does not know the ID at all. It reads a store that all processes share, so no event is lost or doubled
	// while one process replaces another. What it needs for that: each event is in the store before it is published,
	// has an ID, and is published by each process in the order of the store. It may return a part, and is called again
	// then; nothing means that there are no more so far. It must not call Publish. The ID is the client's word.
	From func(ctx context.Context, lastID string) ([]Event, error)

	// Start is the ID of the event before the first that is published here, where From is set. With it a client that
	// comes before the first event knows its place too.
	Start string

	// Lost is sent without From to a client of which the History does not know the last event, before all that the
	// History has. The page may load its state anew then. The zero Lost is not sent.
	Lost Event

	mu      sync.Mutex
	epoch   string
	count   int
	entries []entry
	changed chan struct{} // closed and replaced at each event
}

// entry is an event that was published, or Start. The first one is kept for its ID only, as the place before the history.
type entry struct {
	id    string
	frame []byte
}

const usualHistory = 256

// Publish hands the event to all clients and does not wait for them. An event without ID gets one, which no other
// process has; with From this is an error.
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

// begin is called with mu held, as are number and add.
func (b *Broadcast) begin() {
	if b.changed != nil {
		return
	}
	b.changed = make(chan struct{})
	b.epoch = strconv.FormatUint(rand.Uint64(), 36)
	if b.History <= 0 {
		b.History = usualHistory
	}
	if b.From == nil {
		b.Start = b.number()
	}
	b.entries = []entry{{id: b.Start}}
}

// number begins with what only this process says: numbers alone would come again in the next one.
func (b *Broadcast) number() string { return b.epoch + "-" + strconv.Itoa(b.count) }

// add never changes an element that after may have given out.
func (b *Broadcast) add(e entry) {
	b.entries = append(b.entries, e)
	if surplus := len(b.entries) - (b.History + 1); surplus > 0 {
		b.entries = b.entries[surplus:]
	}
	close(b.changed)
	b.changed = make(chan struct{})
}

// ServeHTTP is that of a Handler of Stream.
func (b *Broadcast) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	Handler(b.Stream).ServeHTTP(w, r)
}

// Stream sends the events to one client until the drain ends its stream, the client leaves or is too slow. It is for
// Handler, to set options or to send something else first.
func (b *Broadcast) Stream(s *Stream, r *http.Request) error {
	last, err := b.greet(s)
	for err == nil {
		last, err = b.goOn(r.Context(), s, last)
	}
	return err
}

// greet finds the place of a client: the ID of the last event that it has.
func (b *Broadcast) greet(s *Stream) (last string, err error) {
	all, _ := b.history()
	newest := all[len(all)-1].id
	switch last = s.LastEventID(); {
	case last == "":
		return newest, s.Send(Event{ID: newest}) // so that it misses nothing if it leaves before the first event
	case b.From != nil || find(all, last) >= 0:
		return last, nil
	}
	if err := s.Send(b.Lost); err != nil {
		return "", err
	}
	return sendAll(s, newest, all[1:])
}

// goOn sends what comes after the last event, or waits until there may be something.
func (b *Broadcast) goOn(ctx context.Context, s *Stream, last string) (string, error) {
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

// history has at least the place before it.
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
		return nil, errors.New("the client is too slow: it is behind by more than the History")
	}
	events, err := b.From(ctx, last)
	if err != nil {
		return nil, fmt.Errorf("cannot go on after event %q: %w", last, err)
	}
	return frames(events)
}

// find begins with the newest, since most clients have it or the one before.
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
