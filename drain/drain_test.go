package drain

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// diary is the order in which things happen.
type diary struct {
	mu    sync.Mutex
	lines []string
}

func (d *diary) note(line string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lines = append(d.lines, line)
}

func (d *diary) mustRead(t *testing.T, want ...string) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if !slices.Equal(d.lines, want) {
		t.Errorf("the order is %q, not %q", d.lines, want)
	}
}

func (d *diary) step(line string) func(context.Context) error {
	return func(context.Context) error { d.note(line); return nil }
}

// hangs is a step that does not heed its context, until the end of the test.
func hangs(t *testing.T) func(context.Context) error {
	end := make(chan struct{})
	t.Cleanup(func() { close(end) })
	return func(context.Context) error { <-end; return nil }
}

func mustSay(t *testing.T, err error, want ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("there is no error")
	}
	if lines := strings.Split(err.Error(), "\n"); !slices.Equal(lines, want) {
		t.Errorf("the errors are %q, not %q", lines, want)
	}
}

// mustStart fails the test if the server does not serve.
func mustStart(t *testing.T, d *Drain, srv *http.Server, ln net.Listener) {
	t.Helper()
	if err := d.Start(srv, ln); err != nil {
		t.Fatal(err)
	}
}

// newQuiet handles no signals and writes its log into a buffer, which is complete when the drain has ended.
func newQuiet(opts ...Option) (*Drain, *bytes.Buffer) {
	var b bytes.Buffer
	log := slog.New(slog.NewTextHandler(&b, nil))
	return New(append([]Option{Signals(), Log(log)}, opts...)...), &b
}

func TestPhasesComeInOrder(t *testing.T) {
	var order diary
	d, _ := newQuiet()
	for _, p := range []Phase{Resources, Streams, Accepting, Requests} {
		d.On(p, p.String(), order.step(p.String()))
	}
	d.Go("worker", func(ctx context.Context) error {
		<-ctx.Done()
		order.note("worker")
		return ctx.Err()
	})
	d.Drain()
	if err := d.Wait(); err != nil {
		t.Error(err)
	}
	order.mustRead(t, "accepting", "requests", "streams", "worker", "resources")
}

func TestResourcesAreClosedInReverse(t *testing.T) {
	var order diary
	d, _ := newQuiet()
	near, far := net.Pipe()
	d.Close("connection", near)
	d.On(Resources, "a function", order.step("first"))
	d.Close("a file", closer(func() error { order.note("second"); return errors.New("disk full") }))
	d.On(Resources, "another function", order.step("third"))
	d.Drain()
	mustSay(t, d.Wait(), "cannot end a file: disk full")
	order.mustRead(t, "third", "second", "first")
	if _, err := far.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the connection is not closed: %v", err)
	}
}

// closer is an io.Closer of a function.
type closer func() error

func (c closer) Close() error { return c() }

func TestDrainIsIdempotentAndErrWaits(t *testing.T) {
	d, _ := newQuiet()
	hold := make(chan struct{})
	d.On(Requests, "held", func(context.Context) error { <-hold; return errors.New("broken") })
	for range 3 {
		d.Drain()
	}
	receive(t, d.Draining())
	if err := d.Err(); err != nil {
		t.Errorf("there is an error before the end: %v", err)
	}
	close(hold)
	receive(t, d.Done())
	d.Drain()
	mustSay(t, d.Err(), "cannot end held: broken")
	mustSay(t, d.Wait(), "cannot end held: broken")
}

// A step that hangs is named, loses its own time, and leaves theirs to the others.
func TestHungStepsAreNamedAndLeaveTimeToTheOthers(t *testing.T) {
	for name, tt := range map[string]struct {
		opts  []Option
		build func(t *testing.T, d *Drain, order *diary)
		took  time.Duration
		err   []string
		order []string
	}{
		"alone it has the whole time": {
			nil,
			func(t *testing.T, d *Drain, _ *diary) { d.On(Requests, "api", hangs(t)) },
			20 * time.Second,
			[]string{"cannot end api: still running: the timeout of 20s has expired"},
			nil,
		},
		"before others it leaves a tenth to each": {
			[]Option{Timeout(10 * time.Second)},
			func(t *testing.T, d *Drain, order *diary) {
				d.On(Requests, "api", hangs(t))
				d.On(Streams, "rooms", order.step("rooms"))
				d.On(Resources, "database", order.step("database"))
			},
			8 * time.Second,
			[]string{"cannot end api: still running: the step's time limit of 8s has expired"},
			[]string{"rooms", "database"},
		},
		"a phase with its own timeout": {
			[]Option{PhaseTimeout(Requests, 3*time.Second)},
			func(t *testing.T, d *Drain, order *diary) {
				d.On(Requests, "api", hangs(t))
				d.On(Requests, "admin", order.step("admin"))
			},
			3 * time.Second,
			[]string{"cannot end api: still running: the step's time limit of 3s has expired"},
			[]string{"admin"},
		},
		"resources share alike": {
			[]Option{Timeout(9 * time.Second)},
			func(t *testing.T, d *Drain, order *diary) {
				d.On(Resources, "first", order.step("first"))
				d.On(Resources, "second", hangs(t))
				d.On(Resources, "third", hangs(t))
			},
			6 * time.Second,
			[]string{
				"cannot end third: still running: the step's time limit of 3s has expired",
				"cannot end second: still running: the step's time limit of 3s has expired",
			},
			[]string{"first"},
		},
		"forgotten workers": {
			nil,
			func(t *testing.T, d *Drain, order *diary) {
				d.Go("mailer", hangs(t))
				d.Go("ticker", hangs(t))
				d.Go("ticker", hangs(t))
				d.Go("obedient", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
				d.On(Resources, "database", order.step("database"))
			},
			18 * time.Second,
			[]string{"cannot end workers mailer, ticker (2 of them): still running: the step's time limit of 18s has expired"},
			[]string{"database"},
		},
		"everything": {
			[]Option{Timeout(10 * time.Second)},
			func(t *testing.T, d *Drain, order *diary) {
				for p := range phases {
					d.On(p, p.String(), hangs(t))
				}
			},
			10 * time.Second,
			[]string{
				"cannot end accepting: still running: the step's time limit of 6s has expired",
				"cannot end requests: still running: the step's time limit of 1s has expired",
				"cannot end streams: still running: the step's time limit of 1s has expired",
				"cannot end workers: still running: the step's time limit of 1s has expired",
				"cannot end resources: still running: the timeout of 10s has expired",
			},
			nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var order diary
				d, log := newQuiet(tt.opts...)
				tt.build(t, d, &order)
				start := time.Now()
				d.Drain()
				err := d.Wait()
				if took := time.Since(start); took != tt.took {
					t.Errorf("it took %v, not %v", took, tt.took)
				}
				mustSay(t, err, tt.err...)
				order.mustRead(t, tt.order...)
				if got := strings.Count(log.String(), "did not end in time"); got != len(tt.err) {
					t.Errorf("%d steps are named in the log, not %d:\n%s", got, len(tt.err), log)
				}
				mustGiveUp(t, log.String(), tt.took, tt.err)
			})
		})
	}
}

// mustGiveUp checks that the last line of the log does not say that all has ended, and names what has not.
func mustGiveUp(t *testing.T, log string, took time.Duration, errs []string) {
	t.Helper()
	var late []string
	for _, err := range errs {
		name, _, _ := strings.Cut(strings.TrimPrefix(err, "cannot end "), ": ")
		late = append(late, name)
	}
	names := strings.Join(late, ", ")
	if strings.ContainsAny(names, " ") {
		names = strconv.Quote(names)
	}
	lines := strings.Split(strings.TrimSpace(log), "\n")
	last := lines[len(lines)-1]
	if want := fmt.Sprintf(`level=WARN msg="gave up after %.1fs (0 in flight)" unfinished=%s`, took.Seconds(), names); !strings.HasSuffix(last, want) {
		t.Errorf("the last line of the log is %s, not %s", last, want)
	}
}

// The cause is the first thing that began the drain.
func TestLogTellsWhatBeganTheDrain(t *testing.T) {
	ended, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("the lease has expired"))
	for name, tt := range map[string]struct {
		opts  []Option
		begin func(d *Drain)
		want  string
	}{
		"a signal": {
			[]Option{Signals(syscall.SIGUSR1)},
			func(*Drain) { raise(t, syscall.SIGUSR1) },
			`"received SIGUSR1"`,
		},
		"an error": {
			nil,
			func(d *Drain) { d.Go("mailer", func(context.Context) error { return errors.New("no such host") }) },
			`"worker mailer failed: no such host"`,
		},
		"the program": {nil, func(d *Drain) { d.Drain() }, `"the program called Drain"`},
		"the context": {[]Option{Context(ended)}, func(*Drain) {}, `"the lease has expired"`},
		"a closed server": {
			nil,
			func(d *Drain) {
				srv, ln := &http.Server{}, listen(t)
				mustStart(t, d, srv, ln)
				srv.Close()
			},
			"was shut down by the program",
		},
	} {
		t.Run(name, func(t *testing.T) {
			d, log := newQuiet(tt.opts...)
			d.stop.waits.Store(true)
			tt.begin(d)
			receive(t, d.Done())
			first, _, _ := strings.Cut(log.String(), "\n")
			if !strings.Contains(first, `msg="start draining (0 in flight)" cause=`) || !strings.Contains(first, tt.want) {
				t.Errorf("the log begins with %s", first)
			}
		})
	}
}

func TestWorkerFinishesWhatItHas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var order diary
		d, _ := newQuiet()
		d.Go("consumer", func(ctx context.Context) error {
			<-ctx.Done()
			d.Go("last words", func(context.Context) error {
				time.Sleep(2 * time.Second)
				order.note("second job")
				return nil
			})
			time.Sleep(time.Second)
			order.note("first job")
			return nil
		})
		d.On(Resources, "database", order.step("database"))
		d.Drain()
		if err := d.Wait(); err != nil {
			t.Error(err)
		}
		order.mustRead(t, "first job", "second job", "database")
	})
}

func TestWorkerHearsOfTheDrainBeforeItHasToEnd(t *testing.T) {
	d, _ := newQuiet()
	heard := make(chan error, 1)
	d.Go("consumer", func(ctx context.Context) error {
		<-Draining(ctx)
		heard <- ctx.Err()
		return nil
	})
	d.On(Requests, "wait for the worker", func(context.Context) error {
		if err := receive(t, heard); err != nil {
			t.Errorf("its context has ended with the requests: %v", err)
		}
		return nil
	})
	d.Drain()
	if err := d.Wait(); err != nil {
		t.Error(err)
	}
}

func TestWorkersErrorBeginsTheDrain(t *testing.T) {
	d, _ := newQuiet()
	d.Go("done soon", func(context.Context) error { return nil })
	d.Go("mailer", func(context.Context) error { return errors.New("no such host") })
	mustSay(t, d.Wait(), "worker mailer failed: no such host")
}

func TestSecondSignalBeginsNothingMore(t *testing.T) {
	var b bytes.Buffer
	d := New(Log(slog.New(slog.NewTextHandler(&b, nil))))
	hanging, hang := make(chan struct{}), hangs(t)
	d.On(Requests, "api", func(ctx context.Context) error { close(hanging); return hang(ctx) })
	d.Close("database", closer(func() error {
		t.Error("the database was closed, though everything had to end at once")
		return nil
	}))
	d.stop.waits.Store(true)
	raise(t, syscall.SIGTERM)
	receive(t, hanging)
	raise(t, syscall.SIGINT)
	receive(t, d.Done())
	mustSay(t, d.Err(),
		"cannot end api: still running: second signal: received SIGINT",
		"cannot end database: not started: second signal: received SIGINT")
}

func TestWhatComesTooLateDoesNotBegin(t *testing.T) {
	d, log := newQuiet()
	d.Drain()
	receive(t, d.Done())
	ln := listen(t)
	never := func(context.Context) error { t.Error("it was called"); return nil }
	mustStart(t, d, &http.Server{}, ln)
	d.Go("worker", never)
	d.On(Requests, "api", never)
	d.Close("database", closer(func() error { return never(t.Context()) }))
	if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the listener is open: %v", err)
	}
	if err := d.Wait(); err != nil {
		t.Error(err)
	}
	if n := strings.Count(log.String(), "not started: its phase of the drain has begun"); n != 4 {
		t.Errorf("the log tells %d times, not 4:\n%s", n, log)
	}
}

func TestSeveralServersDrainTogether(t *testing.T) {
	d, _ := newQuiet(Linger(forever))
	var clients []*client
	for range 2 {
		ln := listen(t)
		mustStart(t, d, &http.Server{Handler: http.HandlerFunc(echo)}, ln)
		c := connect(t, ln.Addr())
		c.mustPost(t, "before", false)
		clients = append(clients, c)
	}
	d.Drain()
	receive(t, d.Draining())
	for _, c := range clients {
		c.mustPost(t, "during", true)
		c.mustEnd(t)
	}
	if err := d.Wait(); err != nil {
		t.Error(err)
	}
}

func TestOneBrokenServerEndsTheOthers(t *testing.T) {
	d, _ := newQuiet(Linger(forever))
	good, broken := listen(t), listen(t)
	mustStart(t, d, &http.Server{Handler: http.HandlerFunc(echo)}, good)
	mustStart(t, d, &http.Server{Handler: http.HandlerFunc(echo)}, broken)
	c := connect(t, good.Addr())
	c.mustPost(t, "before", false)
	broken.Close()
	receive(t, d.Draining())
	c.mustPost(t, "during", true)
	if err := d.Wait(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the error is %v", err)
	}
}

func TestCutRequestsNameTheirServer(t *testing.T) {
	d, log := newQuiet(PhaseTimeout(Requests, time.Millisecond))
	working := make(chan struct{})
	ln := listen(t)
	mustStart(t, d, &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(working)
		<-r.Context().Done()
	})}, ln)
	if err := connect(t, ln.Addr()).send("/", ""); err != nil {
		t.Fatal(err)
	}
	receive(t, working)
	d.Drain()
	name := "server " + ln.Addr().String()
	mustSay(t, d.Wait(), "cannot end "+name+": cut unfinished requests (1): the step's time limit of 1ms has expired")
	if !strings.Contains(log.String(), name) {
		t.Errorf("the log does not name it:\n%s", log)
	}
}

// The rest of the time is for others, not for a handler that heeds nothing.
func TestHandlerThatWasCutIsNotWaitedFor(t *testing.T) {
	d, _ := newQuiet(PhaseTimeout(Requests, time.Millisecond), Timeout(forever))
	working, finish := make(chan struct{}), make(chan struct{})
	defer close(finish)
	ln := listen(t)
	mustStart(t, d, &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		close(working)
		<-finish
	})}, ln)
	if err := connect(t, ln.Addr()).send("/", ""); err != nil {
		t.Fatal(err)
	}
	receive(t, working)
	d.Drain()
	receive(t, d.Done())
}

func TestReadyIsSaidByWait(t *testing.T) {
	notify := notifySocket(t)
	d, _ := newQuiet(Linger(time.Millisecond))
	ln := listen(t)
	mustStart(t, d, &http.Server{Handler: http.HandlerFunc(echo)}, ln)
	connect(t, ln.Addr()).mustPost(t, "before", false)
	message := make([]byte, 100)
	notify.SetReadDeadline(time.Now())
	if n, err := notify.Read(message); err == nil {
		t.Errorf("%q came before Wait", message[:n])
	}
	go d.Wait()
	notify.SetReadDeadline(time.Now().Add(testTimeout))
	mustHear(t, notify, "X_GRACE_DRAINS=1")
	mustHear(t, notify, "READY=1")
	d.Drain()
	receive(t, d.Done())
}

// A defect shows mostly, not always; what is right never fails.
func TestReadyIsNotSaidBeforeEachServerAccepts(t *testing.T) {
	notify := notifySocket(t)
	d, _ := newQuiet()
	looked := make(chan struct{})
	mustStart(t, d, &http.Server{}, listen(t))
	mustStart(t, d, &http.Server{BaseContext: func(net.Listener) context.Context {
		go d.Wait()
		message := make([]byte, 100)
		notify.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		if n, err := notify.Read(message); err == nil {
			t.Errorf("%q came before the second server accepts", message[:n])
		}
		notify.SetReadDeadline(time.Now().Add(testTimeout))
		close(looked)
		return context.Background()
	}}, listen(t))
	receive(t, looked)
	mustHear(t, notify, "X_GRACE_DRAINS=1")
	mustHear(t, notify, "READY=1")
	d.Drain()
	receive(t, d.Done())
}
