package drain

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/gracerun/grace/handoff"
)

// InFlight counts the requests whose handlers have not returned, those that hijacked their connections included.
func (d *Drain) InFlight() int { return int(d.inFlight.Load()) }

// TrackRequest counts a request of a server of another kind as one in flight, until end is called.
func (d *Drain) TrackRequest() (end func()) {
	d.inFlight.Add(1)
	return sync.OnceFunc(func() { d.inFlight.Add(-1) })
}

// Handler counts the requests in flight and, during the drain, asks their clients to leave. Serve puts it in front of
// its servers; use it for a server that a framework owns: Draining works there too, then. A nil handler is
// http.DefaultServeMux.
func (d *Drain) Handler(next http.Handler) http.Handler {
	if next == nil {
		next = http.DefaultServeMux
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d.inFlight.Add(1)
		defer d.inFlight.Add(-1)
		if Draining(r.Context()) == nil {
			r = r.WithContext(d.WithDraining(r.Context()))
		}
		if r.ProtoMajor >= 2 {
			d.serveMultiplexed(next, w, r)
			return
		}
		d.serveOne(next, w, r)
	})
}

// serveMultiplexed does not ask the client to leave: a GOAWAY does, and Connection: close would make net/http send the
// last one at once.
func (d *Drain) serveMultiplexed(next http.Handler, w http.ResponseWriter, r *http.Request) {
	if c := connectionOf(r.Context()); c != nil {
		c.http2.Store(true)
		c.requests.Add(1)
		defer c.endRequest()
	}
	next.ServeHTTP(w, r)
}

func (d *Drain) serveOne(next http.Handler, w http.ResponseWriter, r *http.Request) {
	c := connectionOf(r.Context())
	if c != nil && c.leaving.Load() {
		panic(http.ErrAbortHandler) // it came after the connection's end, so its answer could not be written
	}
	own, ok := w.(http1Writer)
	if !ok {
		d.askToLeave(w)
		next.ServeHTTP(w, r)
		return
	}
	response := d.newResponse(own, r, c)
	defer response.end()
	next.ServeHTTP(response, r)
}

// askToLeave may come before the header is written only.
//
// SetKeepAlivesEnabled(false) would write the same header, but closes idle connections at once, and those that become
// idle before their client has read the header.
func (d *Drain) askToLeave(w http.ResponseWriter) {
	select {
	case <-d.draining:
		w.Header().Set("Connection", "close")
	default:
	}
}

// report tells how the drain goes, each second until ended is closed.
func (d *Drain) report(ended <-chan struct{}) {
	d.log.Info(fmt.Sprintf("start draining (%d in flight)", d.tell(handoff.Stopping)), "cause", context.Cause(d.stop.begin))
	second := time.NewTicker(time.Second)
	defer second.Stop()
	for {
		select {
		case <-second.C:
			d.log.Info(fmt.Sprintf("draining... (%d in flight)", d.tell()), d.waitedFor()...)
		case <-ended:
			d.awaitMessage()
			return
		}
	}
}

func (d *Drain) waitedFor() []any {
	if who := d.hijacks.waitedFor(); who != "" {
		return []any{"waiting_for", who}
	}
	return nil
}

// tell lets the supervisor know how many requests are in flight, after the news. It does not wait for a supervisor that is slow, nor
// heed one that is gone: the drain does not depend on either.
func (d *Drain) tell(news ...func() error) int {
	n := d.InFlight()
	select {
	case d.telling <- struct{}{}:
	default:
		return n
	}
	go func() {
		defer func() { <-d.telling }()
		for _, send := range news {
			_ = send()
		}
		_ = handoff.InFlight(n)
		_ = handoff.Status(fmt.Sprintf("draining, %d in flight", n))
	}()
	return n
}

// messagePatience is what a slow supervisor can cost the drain at its end.
const messagePatience = 100 * time.Millisecond

// awaitMessage lets the message that is on its way arrive before the process ends.
func (d *Drain) awaitMessage() {
	select {
	case d.telling <- struct{}{}:
		<-d.telling
	case <-time.After(messagePatience):
	}
}

// conclude is told how many requests were given up.
func (d *Drain) conclude(took time.Duration, cut int) {
	late := d.notEnded()
	if cut == 0 && late == "" {
		d.log.Info(fmt.Sprintf("drained in %.1fs", took.Seconds()))
		return
	}
	var unfinished []any
	if late != "" {
		unfinished = []any{"unfinished", late}
	}
	d.log.Warn(fmt.Sprintf("gave up after %.1fs (%d in flight)", took.Seconds(), cut), unfinished...)
}

func (d *Drain) notEnded() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return strings.Join(d.late, ", ")
}
