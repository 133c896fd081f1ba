package drain

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gracerun/grace/handoff"
)

// Drain ends a program in an orderly way. Start, Go, On and Close register the parts of the program, a signal begins the
// drain, and Wait returns after it. All methods may be called from any goroutine.
//
// The drain runs the phases in order and waits for each. A phase may use the rest of the Timeout, less a tenth of the
// Timeout for each later phase that has something to do; PhaseTimeout shortens that. A step that has not ended by then is
// named in the log and left behind. SIGQUIT, or a second signal, ends all phases at once: requests are
// cut, and steps that have not begun are not started. The same signal again within half a second does not count as a second
// one, because many parents signal a process and then its process group.
//
// A signal may come while the program starts, between New and Wait. SIGTERM and SIGINT then begin the drain as well. The
// parts that were registered are ended. A part that is registered after its phase has begun is not served, started or
// called, and the log says so. Wait returns at once and does not announce readiness. The code that starts the program runs
// until it calls Wait; if it takes long, it should select on Draining. SIGQUIT, and a second signal, have their default
// action before Wait: they end the process at once.
//
// The log says what began the drain, how many requests are in flight each second, and how the drain ended. The supervisor
// gets the number of requests too.
type Drain struct {
	o         options
	log       *slog.Logger
	stop      *stop
	draining  chan struct{}
	ending    chan struct{} // closed when the streams have to end
	done      chan struct{}
	workers   *workers
	hijacks   *hijacks
	ready     func()
	inFlight  atomic.Int64
	notifying chan struct{} // has an element while a message to the supervisor is being sent

	overdue atomic.Bool // a step of Requests or Streams has failed

	mu       sync.Mutex
	begun    Phase // the phases before this one have begun
	steps    [phases][]step
	servers  []*server
	errs     []error
	timedOut []string // names of steps that did not end in time
}

// New starts to handle the process's signals (see Signals), until the drain has ended. Wait has to be called later.
func New(opts ...Option) *Drain {
	d := newDrain(opts)
	go d.run()
	return d
}

func newDrain(opts []Option) *Drain {
	o := newOptions(opts)
	d := &Drain{
		o:         o,
		log:       o.log,
		stop:      watch(o),
		draining:  make(chan struct{}),
		ending:    make(chan struct{}),
		done:      make(chan struct{}),
		notifying: make(chan struct{}, 1),
		hijacks:   newHijacks(),
	}
	d.workers = newWorkers(d.WithDraining(context.Background()))
	d.ready = sync.OnceFunc(d.sayReady)
	return d
}

func (d *Drain) run() {
	defer close(d.done)
	defer d.stop.close()
	<-d.stop.begin.Done()
	ctx, cancel := context.WithTimeoutCause(d.stop.now, d.o.timeout, fmt.Errorf("the timeout of %v has expired", d.o.timeout))
	defer cancel()
	close(d.draining)
	ended := make(chan struct{})
	var reporting sync.WaitGroup
	reporting.Go(func() { d.report(ended) })
	begun := time.Now()
	for p := range phases {
		d.runPhase(ctx, p)
	}
	took := time.Since(begun)
	close(ended)
	reporting.Wait()
	d.logResult(took, d.cut())
}

// cut counts the requests that were cut. Requests that another kind of server has cut are still counted as in flight.
func (d *Drain) cut() int {
	cut := d.hijacks.forcedCount()
	for _, s := range d.served() {
		cut += s.cut
	}
	if d.overdue.Load() {
		cut = max(cut, d.InFlight())
	}
	return cut
}

// Drain begins the drain and returns at once. It is for programs that handle the signals themselves. Only the
// first call has an effect.
func (d *Drain) Drain() { d.stop.start(errCalled) }

var errCalled = errors.New("the program called Drain")

// Draining is closed when the drain begins.
func (d *Drain) Draining() <-chan struct{} { return d.draining }

// Done is closed when the drain has ended.
func (d *Drain) Done() <-chan struct{} { return d.done }

// Err returns nil until Done is closed. After that it returns the error that began the drain, if there was one, joined with
// the errors of all steps.
func (d *Drain) Err() error {
	select {
	case <-d.done:
	default:
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return errors.Join(d.errs...)
}

// Wait calls handoff.Ready once each server that was given to Start accepts connections. Then it waits until the drain has
// ended, and returns Err. Call it last, when all parts are registered. A program without a server calls it too.
func (d *Drain) Wait() error {
	d.stop.waits.Store(true)
	d.ready()
	<-d.done
	return d.Err()
}

func (d *Drain) sayReady() {
	for _, s := range d.served() {
		select {
		case <-s.ln.accepting:
		case <-s.ended:
		case <-d.draining:
		}
	}
	select {
	case <-d.draining:
		return
	default:
	}
	if err := sayReady(); err != nil {
		d.fail(fmt.Errorf("cannot announce that the program is ready: %w", err))
	}
}

// sayReady also lets grace leave the connections alone at the end: what it held back would be missing here.
func sayReady() error {
	return errors.Join(handoff.Notify("X_GRACE_DRAINS=1"), handoff.Ready())
}

func (d *Drain) served() []*server {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.servers
}

// Start serves HTTP on ln until the drain. It does not block: it returns nil when srv accepts connections, or an error if
// srv cannot serve. A later error of Accept begins the drain, and Wait returns it. Several servers may be started, each
// with an http.Server of its own. If the drain has already begun, Start closes ln, writes a line to the log and returns nil,
// so that the program continues to Wait.
//
// Once the drain has begun, responses have the header Connection: close. The phase Accepting accepts the
// connections that wait in the queue and closes ln. The phase Requests lasts until no connection is left,
// or until all remaining connections have been idle for the Linger; requests that are unanswered when its time is over are
// cut. The phase Streams ends with srv.Shutdown.
//
// Start owns srv and ln from the call on, and closes ln in any case. It wraps srv's Handler, ConnContext, ConnState
// and BaseContext, which are still called. If srv has no ReadTimeout, Start sets ReadHeaderTimeout to one minute and
// IdleTimeout to eleven minutes, unless they are set; a negative value means no limit. It sets HTTP2.WriteByteTimeout to ten
// seconds, unless that is set: an HTTP/2 client that takes no byte for so long is cut.
//
// If ln has no SetDeadline, as that of tls.NewListener, it is closed at once, and the connections in its queue are lost
// unless another process has the socket too. Use StartTLS instead.
func (d *Drain) Start(srv *http.Server, ln net.Listener) error { return d.start(srv, ln, srv.Serve) }

// StartTLS is Start for HTTPS. The files are as in http.Server.ServeTLS: empty if srv.TLSConfig has certificates.
func (d *Drain) StartTLS(srv *http.Server, ln net.Listener, certFile, keyFile string) error {
	return d.start(srv, ln, func(ln net.Listener) error { return srv.ServeTLS(ln, certFile, keyFile) })
}

func (d *Drain) start(srv *http.Server, ln net.Listener, serve func(net.Listener) error) error {
	s := newServer(srv, ln)
	if d.hasServer(srv) {
		ln.Close()
		return fmt.Errorf("cannot start %s: its http.Server was started before: make one for each listener", s.name)
	}
	if !d.addServer(s) {
		ln.Close()
		d.logTooLate(s.name)
		return nil
	}
	s.attach(d, ln)
	failed := make(chan error, 1)
	go func() { failed <- d.serve(s, serve) }()
	select {
	case <-s.ln.accepting:
		return nil
	case err := <-failed:
		return err
	}
}

// serve returns an error if the server ended before it accepted. A later error begins the drain.
func (d *Drain) serve(s *server, serve func(net.Listener) error) error {
	defer close(s.ended)
	defer s.ln.Close() // ServeTLS does not, if it has no certificate
	err := serve(s.ln)
	if !s.ln.stopped() && !s.ln.accepted() {
		return fmt.Errorf("cannot start %s: %w", s.name, err)
	}
	d.fail(s.acceptError(err))
	d.stop.start(fmt.Errorf("%s was shut down by the program", s.name))
	return nil
}

func (d *Drain) hasServer(srv *http.Server) bool {
	return slices.ContainsFunc(d.served(), func(s *server) bool { return s.srv == srv })
}

// addServer adds a server's steps, or none if it is too late. Its step of Streams is added later, by ends: without streams it
// is so short that no time need be reserved for it.
func (d *Drain) addServer(s *server) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.begun > Accepting {
		return false
	}
	d.servers = append(d.servers, s)
	d.steps[Accepting] = append(d.steps[Accepting], step{s.name, s.stopAccepting})
	d.steps[Requests] = append(d.steps[Requests], step{s.name, func(ctx context.Context) error {
		return s.finish(ctx, d.o.linger)
	}})
	return true
}

// On registers f as a step of a phase. The steps of a phase run at the same time, and the drain waits for all of them. The
// name is for the log and for errors. f must return when its context is done; if it does not, the drain
// leaves it behind. This is how other kinds of servers take part:
//
//	d.On(drain.Requests, "admin", admin.Shutdown)
//
// The steps of Resources run one after another, the last registered first, and each gets an even share of
// the time. An error of f is part of Wait's.
func (d *Drain) On(p Phase, name string, f func(ctx context.Context) error) {
	if !d.add(p, abandonable(name, f)) {
		d.logTooLate(name)
	}
}

// Close registers a resource that the phase Resources closes, after those that were registered later. For a resource that
// is closed by a function, use On with Resources.
func (d *Drain) Close(name string, resource io.Closer) {
	d.On(Resources, name, func(context.Context) error { return resource.Close() })
}

func (d *Drain) add(p Phase, s step) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.begun > p {
		return false
	}
	d.steps[p] = append(d.steps[p], s)
	return true
}

// take begins a phase: no step can be added to it any more.
func (d *Drain) take(p Phase) []step {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.begun = p + 1
	return d.steps[p]
}

func (d *Drain) busy(p Phase) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.steps[p]) > 0 || p == Workers && d.workers.busy() || p == Streams && d.streaming()
}

func (d *Drain) streaming() bool {
	return d.hijacks.count() > 0 || slices.ContainsFunc(d.servers, (*server).streaming)
}

func (d *Drain) fail(err error) {
	if err == nil {
		return
	}
	d.mu.Lock()
	d.errs = append(d.errs, err)
	d.mu.Unlock()
	d.stop.start(err)
}

func (d *Drain) logTooLate(name string) {
	d.log.Warn("not started: its phase of the drain has begun", "step", name)
}
