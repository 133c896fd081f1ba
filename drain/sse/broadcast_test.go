package sse

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func publish(t *testing.T, b *Broadcast, data ...string) {
	t.Helper()
	for _, d := range data {
		if err := b.Publish(Event{Data: d}); err != nil {
			t.Fatal(err)
		}
	}
}

// mustBegin waits until the client has its place, as a new one is told.
func (c *client) mustBegin() {
	c.t.Helper()
	for c.lastID == "" {
		line, err := c.line()
		if err != nil {
			c.t.Fatal(err)
		}
		if field, value, _ := strings.Cut(line, ": "); field == "id" {
			c.lastID = value
		}
	}
}

func TestBroadcastReachesAll(t *testing.T) {
	overBoth(t, func(t *testing.T, http2 bool) {
		b := &Broadcast{}
		srv := serve(t, http2, b)
		publish(t, b, "before they came")
		var clients []*client
		for range 10 {
			c := srv.get("")
			c.mustBegin()
			clients = append(clients, c)
		}
		publish(t, b, "one", "two")
		for _, c := range clients {
			c.mustGet("one", "two")
		}
		srv.drain.Drain()
		for _, c := range clients {
			c.mustEnd()
		}
	})
}

func TestClientComesBackForWhatItMissed(t *testing.T) {
	b := &Broadcast{Lost: Event{Name: "lost"}}
	srv := serve(t, false, b)
	c := srv.get("")
	c.mustBegin()
	c.stop()
	publish(t, b, "one", "two")
	c = srv.get(c.lastID)
	c.mustGet("one", "two")
	c.stop()
	publish(t, b, "three")
	c = srv.get(c.lastID)
	c.mustGet("three")
	publish(t, b, "four")
	c.mustGet("four")
}

func TestIDsOfTheUser(t *testing.T) {
	b := &Broadcast{}
	for id := range 5 {
		if err := b.Publish(Event{ID: strconv.Itoa(id), Data: fmt.Sprint("event ", id)}); err != nil {
			t.Fatal(err)
		}
	}
	serve(t, false, b).get("2").mustGet("event 3", "event 4")
	if err := b.Publish(Event{ID: "a\nb"}); err == nil {
		t.Error("an ID of two lines was published")
	}
}

func TestClientOfAnotherProcessIsToldSo(t *testing.T) {
	before := &Broadcast{}
	c := serve(t, false, before).get("")
	c.mustBegin()
	publish(t, before, "one")
	c.mustGet("one")
	for name, history := range map[string][]string{"history": {"a", "b"}, "no history": nil} {
		t.Run(name, func(t *testing.T) {
			b := &Broadcast{Lost: Event{Name: "lost", Data: "load again"}}
			publish(t, b, history...)
			c := serve(t, false, b).get(c.lastID)
			c.mustGet("load again")
			c.mustGet(history...)
			publish(t, b, "live")
			c.mustGet("live")
		})
	}
}

func TestHistoryIsBounded(t *testing.T) {
	b := &Broadcast{History: 3, Lost: Event{Data: "lost"}}
	srv := serve(t, false, Handler(b.Stream, Log(quiet())))
	c := srv.get("")
	c.mustBegin()
	c.stop()
	publish(t, b, "1", "2", "3", "4")
	srv.get(c.lastID).mustGet("lost", "2", "3", "4")
	if n := len(b.entries); n != 3+1 {
		t.Errorf("%d entries are kept", n)
	}
}

// slow is a ResponseWriter that takes a message only when it is let to.
type slow struct {
	*httptest.ResponseRecorder
	writing, let chan struct{}
}

func (s *slow) Write(p []byte) (int, error) {
	s.writing <- struct{}{}
	<-s.let
	return s.ResponseRecorder.Write(p)
}

func (s *slow) take() {
	<-s.writing
	s.let <- struct{}{}
}

func TestSlowClientHoldsNobodyAndIsDropped(t *testing.T) {
	for name, c := range map[string]struct {
		published int
		dropped   bool
	}{"within the history": {4, false}, "beyond it": {5, true}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := &logged{}
				b := &Broadcast{History: 3}
				w := &slow{httptest.NewRecorder(), make(chan struct{}), make(chan struct{})}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				go func() {
					Handler(b.Stream, Heartbeat(0), log.option()).
						ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil))
				}()
				w.take() // retry
				w.take() // id
				synctest.Wait()
				publish(t, b, "1")
				<-w.writing
				for n := 2; n <= c.published; n++ {
					publish(t, b, strconv.Itoa(n))
				}
				w.let <- struct{}{}
				synctest.Wait()
				if got := strings.Contains(log.String(), "too slow"); got != c.dropped {
					t.Errorf("dropped %v, want %v: %s", got, c.dropped, log)
				}
				for n := 2; n <= c.published && !c.dropped; n++ {
					w.take()
				}
				cancel()
				synctest.Wait()
			})
		})
	}
}

// store is what processes share. It gives out a few events at a time.
type store struct {
	mu     sync.Mutex
	events []Event
}

func (s *store) add() Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.events) + 1
	e := Event{ID: strconv.Itoa(n), Data: fmt.Sprint("event ", n)}
	s.events = append(s.events, e)
	return e
}

func (s *store) after(_ context.Context, lastID string) ([]Event, error) {
	n, err := strconv.Atoi(lastID)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if n > len(s.events) {
		return nil, fmt.Errorf("there are %d events only", len(s.events))
	}
	return s.events[n:min(n+3, len(s.events))], nil
}

// Two processes that learn of the events at different times serve clients that change from one to the other.
func TestNoEventIsLostOrDoubledBetweenProcesses(t *testing.T) {
	const events, clients = 300, 5
	shared := &store{}
	var servers []*server
	var processes []*Broadcast
	for range 2 {
		b := &Broadcast{History: 8, From: shared.after, Start: "0"}
		processes = append(processes, b)
		servers = append(servers, serve(t, false, b))
	}
	var running sync.WaitGroup
	defer running.Wait()
	for range clients {
		running.Go(func() {
			for n, lastID := 0, "0"; n < events; {
				c := servers[rand.N(2)].get(lastID)
				for range min(1+rand.N(10), events-n) {
					n++
					if m, err := c.next(); err != nil || m.id != strconv.Itoa(n) || m.data != "event "+m.id {
						t.Errorf("got %q, %v; want event %d", m, err, n)
						return
					}
				}
				lastID = c.lastID
				c.stop()
			}
		})
	}
	var behind [2][]Event
	for range events {
		e := shared.add()
		for i := range behind {
			behind[i] = append(behind[i], e)
			for rand.N(3) == 0 && len(behind[i]) > 0 {
				if err := processes[i].Publish(behind[i][0]); err != nil {
					t.Fatal(err)
				}
				behind[i] = behind[i][1:]
			}
		}
		time.Sleep(rand.N(time.Millisecond))
	}
	for i := range behind {
		for _, e := range behind[i] {
			if err := processes[i].Publish(e); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// A client that came before the first event and left has a place too.
func TestStart(t *testing.T) {
	shared := &store{}
	shared.add()
	b := &Broadcast{From: shared.after, Start: "1"}
	c := serve(t, false, b).get("")
	c.mustBegin()
	c.stop()
	shared.add()
	other := &Broadcast{From: shared.after}
	serve(t, false, other).get(c.lastID).mustGet("event 2")
}

func TestWithoutStartANewClientGetsWhatComes(t *testing.T) {
	shared := &store{}
	shared.add()
	b := &Broadcast{From: shared.after}
	begun := make(chan struct{})
	c := serve(t, false, Handler(func(s *Stream, r *http.Request) error {
		last, err := b.startingPoint(s)
		close(begun)
		for err == nil {
			last, err = b.sendNext(r.Context(), s, last)
		}
		return err
	})).get("")
	receive(t, begun)
	if err := b.Publish(shared.add()); err != nil {
		t.Fatal(err)
	}
	c.mustGet("event 2")
}

// The store cannot say what comes after nothing.
func TestSlowClientWithoutAPlaceIsDropped(t *testing.T) {
	shared := &store{}
	b := &Broadcast{History: 1, From: shared.after}
	for range 2 {
		if err := b.Publish(shared.add()); err != nil {
			t.Fatal(err)
		}
	}
	all, _ := b.history()
	if _, err := b.after(t.Context(), all, ""); err == nil || !strings.Contains(err.Error(), "too slow") {
		t.Errorf("it ends with %v", err)
	}
}

func TestTroubleWithTheStore(t *testing.T) {
	for want, from := range map[string]func(context.Context, string) ([]Event, error){
		`cannot get the events after \"7\": no store`: func(context.Context, string) ([]Event, error) { return nil, errors.New("no store") },
		"has no ID":          func(context.Context, string) ([]Event, error) { return []Event{{Data: "x"}}, nil },
		"more than one line": func(context.Context, string) ([]Event, error) { return []Event{{ID: "1", Name: "\n"}}, nil },
	} {
		log := &logged{}
		b := &Broadcast{From: from}
		srv := serve(t, false, Handler(b.Stream, log.option()))
		srv.get("7").mustEnd()
		srv.Close()
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log says %q, want %q", log, want)
		}
		if err := b.Publish(Event{Data: "x"}); err == nil || !strings.Contains(err.Error(), "no ID") {
			t.Errorf("Publish without an ID returns %v", err)
		}
	}
}

func TestNoGoroutineIsLeft(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Run("streams", func(t *testing.T) {
		overBoth(t, func(t *testing.T, http2 bool) {
			b := &Broadcast{}
			srv := serve(t, http2, b)
			for n := range 40 {
				c := srv.get("")
				c.mustBegin()
				if n%2 == 0 {
					c.stop()
				}
			}
		})
	})
	for deadline := time.Now().Add(testTimeout); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<20)
			t.Fatalf("%d goroutines before, %d after:\n%s", before, runtime.NumGoroutine(), stacks[:runtime.Stack(stacks, true)])
		}
	}
}
