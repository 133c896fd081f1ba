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

// Drain is the life of a program, of which the end is a drain: Start, Go, On and Close say what the program consists
// of, a signal begins the end, and Wait returns after it. All methods may be called from any goroutine.
//
// The drain goes through the phases in order, each of which is awaited. A phase may use what is left of the Timeout
// except a tenth of it for each later phase that has something to do, or less by PhaseTimeout. A step that is not
// ended by then is named in the log and left behind. A second signal and SIGQUIT end all phases at once: requests are
// cut, and what has not begun does not begin any more. The same signal again within half a second is no second one: many
// parents signal a process and then its group.
//
// A signal may come in the start-up, between New and Wait. SIGTERM and SIGINT begin the drain then, too: what was given to
// the Drain is ended; what is given to it after its phase has begun is not served, started nor called, and the log says
// so; and Wait returns at once, without Ready. The start-up itself goes on until Wait; one that takes long selects on
// Draining. SIGQUIT and a second signal have their default action in the start-up: they end the process at once.
//
// The log says what began the drain, each second how many requests are in flight, and how the drain ended. The supervisor
// is told the number, too.
type Drain struct {
	o        options
	log      *slog.Logger
	stop     *stop
	draining chan struct{}
	ending   chan struct{} // closed when the streams have to end
	done     chan struct{}
	workers  *workers
	hijacks  *hijacks
	ready    func()
	inFlight atomic.Int64
	telling  chan struct{} // has an element while the supervisor is told

	overdue atomic.Bool // a step of Requests or Streams did not end well

	mu      sync.Mutex
	begun   Phase // the phases before this one have begun
	steps   [phases][]step
	servers []*server
	errs    []error
	late    []string // names of steps that did not end in time
}

// New handles the process's signals from now on (see Signals) until the drain has ended.
func New(opts ...Option) *Drain {
	d := newDrain(opts)
	go d.run()
	return d
}

func newDrain(opts []Option) *Drain {
	o := newOptions(opts)
	d := &Drain{
		o:        o,
		log:      o.log,
		stop:     watch(o),
		draining: make(chan struct{}),
		ending:   make(chan struct{}),
		done:     make(chan struct{}),
		telling:  make(chan struct{}, 1),
		hijacks:  newHijacks(),
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
	d.conclude(took, d.cut())
}

// cut counts the requests that the drain gave up. What a server of another kind gave up is in flight still.
func (d *Drain) cut() int {
	cut := d.hijacks.cut()
	for _, s := range d.served() {
		cut += s.cut
	}
	if d.overdue.Load() {
		cut = max(cut, d.InFlight())
	}
	return cut
}

// Drain begins the drain, for programs that handle the signals themselves, and does not wait for its end. Only the
// first call does something.
func (d *Drain) Drain() { d.stop.start(errCalled) }

var errCalled = errors.New("the program called Drain")

// Draining is closed when the drain begins.
func (d *Drain) Draining() <-chan struct{} { return d.draining }

// Done is closed when the drain has ended.
func (d *Drain) Done() <-chan struct{} { return d.done }

// Err is nil until Done is closed. Then it joins what began the drain, if that was an error, and what each step says
// that did not end well.
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

// Wait calls handoff.Ready when each server that was given to Start accepts connections, waits until the drain has
// ended, and returns Err. Call it last, when the program is complete: there may be no server at all.
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
	if err := handoff.Ready(); err != nil {
		d.fail(fmt.Errorf("cannot announce that the program is ready: %w", err))
	}
}

func (d *Drain) served() []*server {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.servers
}

// Start serves HTTP on ln until the drain. It returns when srv accepts connections, or with the error why it cannot. A
// later error of Accept begins the drain, and Wait returns it. There may be several servers, each an http.Server of its
// own. If the drain has begun already, ln is closed, the log says so, and the error is nil: the program goes on to Wait.
//
// From the beginning of the drain on, requests that come in are answered with Connection: close. In Accepting,
// connections that wait in the queue are accepted still, then ln is closed. Requests lasts until no connection is left,
// or until all that are left have been idle for the Linger. Shutdown comes last. What remains at the end of the phase is
// cut.
//
// Start owns srv and ln from the call on, and closes ln in any case. It puts itself in front of srv's Handler, ConnState
// and BaseContext, which still do their work. A server without ReadTimeout gets a ReadHeaderTimeout of one minute and an
// IdleTimeout of eleven, where these are not set; a negative value means none. A client of HTTP/2 that takes no byte for
// ten seconds is cut, unless srv.HTTP2 says otherwise.
//
// A ln without SetDeadline, such as tls.NewListener gives, is closed as it stands: what waits in its queue is lost unless
// another process has the socket too. Use StartTLS instead.
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
		d.tooLate(s.name)
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

// serve returns an error if the server has ended before it accepted. After that an error is the drain's.
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

// addServer puts a server into its phases, or into none. What it does in Streams is brief without streams, so it is no
// step that time is kept for.
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

// On has f called in a phase, beside the other steps of it, and awaited. The name is for the log and for errors. f
// returns when its context is done, if not before; one that does not is left behind. So servers of other kinds take
// part:
//
//	d.On(drain.Requests, "admin", admin.Shutdown)
//
// In Resources one step comes after the other, the one that was registered last first, and each has an even share of
// the time.
func (d *Drain) On(p Phase, name string, f func(ctx context.Context) error) {
	if !d.add(p, guarded(name, f)) {
		d.tooLate(name)
	}
}

// Close has a resource closed in the phase Resources, after those that were registered later. What is ended by a
// function takes part by On(Resources, name, function).
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

// take begins a phase: nothing can be added to it any more.
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

func (d *Drain) tooLate(name string) {
	d.log.Warn("not started: its phase of the drain has begun", "step", name)
}
