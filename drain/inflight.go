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

// InFlight is the number of requests whose handlers have not returned, including handlers that have hijacked a connection.
func (d *Drain) InFlight() int { return int(d.inFlight.Load()) }

// TrackRequest counts a request of another kind of server as in flight until end is called. end may be called several times.
func (d *Drain) TrackRequest() (end func()) {
	d.inFlight.Add(1)
	return sync.OnceFunc(func() { d.inFlight.Add(-1) })
}

// Handler wraps next. It counts the requests in flight, makes Draining work with their contexts, and during the drain
// makes their clients leave. Start wraps the handlers of its servers itself; use Handler for a server that a framework owns.
// If next is nil, it is http.DefaultServeMux.
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
			d.serveHTTP2(next, w, r)
			return
		}
		d.serveHTTP1(next, w, r)
	})
}

// serveHTTP2 sets no Connection: close: a GOAWAY makes the client leave, and the header would make net/http send the
// final GOAWAY at once.
func (d *Drain) serveHTTP2(next http.Handler, w http.ResponseWriter, r *http.Request) {
	if c := connectionOf(r.Context()); c != nil {
		c.http2.Store(true)
		c.requests.Add(1)
		defer c.endRequest()
	}
	next.ServeHTTP(w, r)
}

func (d *Drain) serveHTTP1(next http.Handler, w http.ResponseWriter, r *http.Request) {
	c := connectionOf(r.Context())
	if c != nil && c.closing.Load() {
		panic(http.ErrAbortHandler) // the connection is already closed for writing, so the response could not be sent
	}
	own, ok := w.(http1Writer)
	if !ok {
		d.closeAfterResponse(w)
		next.ServeHTTP(w, r)
		return
	}
	response := d.newResponse(own, r, c)
	defer response.end()
	next.ServeHTTP(response, r)
}

// closeAfterResponse has to be called before the header is written.
//
// SetKeepAlivesEnabled(false) would write the same header, but it also closes idle connections at once, even those that
// become idle before the client has read the header.
func (d *Drain) closeAfterResponse(w http.ResponseWriter) {
	select {
	case <-d.draining:
		w.Header().Set("Connection", "close")
	default:
	}
}

// report logs the progress of the drain each second, until ended is closed.
func (d *Drain) report(ended <-chan struct{}) {
	d.log.Info(fmt.Sprintf("start draining (%d in flight)", d.notify(handoff.Stopping)), "cause", context.Cause(d.stop.begin))
	second := time.NewTicker(time.Second)
	defer second.Stop()
	for {
		select {
		case <-second.C:
			d.log.Info(fmt.Sprintf("draining... (%d in flight)", d.notify()), d.waitedFor()...)
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

// notify sends news and the number of requests in flight to the supervisor, and returns that number. The drain must not
// depend on the supervisor: notify does not wait for a slow one, and ignores errors.
func (d *Drain) notify(news ...func() error) int {
	n := d.InFlight()
	select {
	case d.notifying <- struct{}{}:
	default:
		return n
	}
	go func() {
		defer func() { <-d.notifying }()
		for _, send := range news {
			_ = send()
		}
		_ = handoff.InFlight(n)
		_ = handoff.Status(fmt.Sprintf("draining, %d in flight", n))
	}()
	return n
}

// notifyTimeout bounds how long a slow supervisor can delay the end of the drain.
const notifyTimeout = 100 * time.Millisecond

// awaitMessage lets a message that is being sent arrive before the process ends.
func (d *Drain) awaitMessage() {
	select {
	case d.notifying <- struct{}{}:
		<-d.notifying
	case <-time.After(notifyTimeout):
	}
}

// logResult gets the number of requests that were cut.
func (d *Drain) logResult(took time.Duration, cut int) {
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
	return strings.Join(d.timedOut, ", ")
}
