// App is the server that the tools of the comparison replace. Its version comes from a file, so that a deployment is a change of
// that file, and the file can make a version a bad one.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/gracerun/grace/drain"
	"github.com/gracerun/grace/handoff"
)

type options struct {
	addr, version string
	delay         time.Duration
	shares, flips bool
	end           ending
}

func main() {
	var o options
	end := flag.String("end", "shutdown", "how the app ends: drain, shutdown, die")
	flag.StringVar(&o.addr, "addr", "127.0.0.1:0", "what to listen on when no socket was inherited")
	flag.StringVar(&o.version, "version", "", "`file` with the number of the version, and a fault that it has")
	flag.DurationVar(&o.delay, "delay", 0, "what the start takes beyond that of the program itself")
	flag.BoolVar(&o.shares, "reuseport", false, "listen with SO_REUSEPORT")
	flag.BoolVar(&o.flips, "tableflip", false, "let tableflip replace the process on SIGHUP")
	flag.Parse()
	slog.SetDefault(slog.New(slog.DiscardHandler)) // drain says when it begins and ends
	o.end = endings[*end]
	if err := o.run(); err != nil {
		fmt.Fprintln(os.Stderr, "app:", err)
		os.Exit(1)
	}
}

func (o options) run() error {
	v, err := readVersion(o.version)
	if err != nil {
		return err
	}
	time.Sleep(o.delay)
	if err := v.fail(); err != nil {
		return err
	}
	told, stop := v.stops()
	defer stop()
	if o.flips {
		return o.serveFlipped(v, told)
	}
	ln, err := o.listen()
	if err != nil {
		return err
	}
	return o.end(told, server(v), ln, nothing)
}

func (o options) listen() (net.Listener, error) {
	if !o.shares {
		return handoff.Listen("tcp", o.addr)
	}
	cfg := net.ListenConfig{Control: reusePort}
	return cfg.Listen(context.Background(), "tcp", o.addr)
}

// ending serves until told ends, and then finishes as its kind of app does. It calls ready when it serves.
type ending func(told context.Context, s *http.Server, ln net.Listener, ready func() error) error

var endings = map[string]ending{"drain": endByDrain, "shutdown": endByShutdown, "die": endAtOnce}

func nothing() error { return nil }

// silence is longer than the clients' pauses.
const silence = 1500 * time.Millisecond

func endByDrain(told context.Context, s *http.Server, ln net.Listener, ready func() error) error {
	d := drain.New(drain.Context(told), drain.Linger(silence))
	if err := d.Start(s, ln); err != nil {
		return err
	}
	if err := ready(); err != nil {
		return err
	}
	return d.Wait()
}

// grant is what an app gives its requests after it was told to stop.
const grant = 2 * time.Second

func endByShutdown(told context.Context, s *http.Server, ln net.Listener, ready func() error) error {
	served := make(chan error, 1)
	go func() { served <- s.Serve(ln) }()
	if err := ready(); err != nil {
		return err
	}
	select {
	case err := <-served:
		return err
	case <-told.Done():
	}
	ctx, cancel := context.WithTimeout(context.Background(), grant)
	defer cancel()
	_ = s.Shutdown(ctx) // what has not ended is cut now
	return nil
}

func endAtOnce(told context.Context, s *http.Server, ln net.Listener, ready func() error) error {
	context.AfterFunc(told, func() { os.Exit(0) })
	if err := ready(); err != nil {
		return err
	}
	return s.Serve(ln)
}

// stops is the moment in which the app is told to stop. A version that hangs does not heed it.
func (v version) stops() (context.Context, context.CancelFunc) {
	signals := []os.Signal{syscall.SIGTERM, syscall.SIGINT}
	if v.fault != "hang" {
		return signal.NotifyContext(context.Background(), signals...)
	}
	signal.Ignore(signals...)
	return context.WithCancel(context.Background())
}
