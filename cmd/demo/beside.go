package demo

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/gracerun/grace/cmd/load"
	"github.com/gracerun/grace/handoff/farewell"
	"github.com/gracerun/grace/internal/gracelog"
	"github.com/gracerun/grace/supervisor/control"
	"github.com/spf13/cobra"
)

const plainCommand = "demo-plain-app"

// PlainCommand is the app beside: a server that knows nothing of grace, as the documentation of net/http shows it.
func PlainCommand() *cobra.Command {
	return &cobra.Command{
		Use:    plainCommand,
		Short:  "The plain web app that the demo upgrades too",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE:   func(*cobra.Command, []string) error { return servePlain() },
	}
}

// servePlain takes its socket as descriptor 3, without a question.
func servePlain() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	ln, err := net.FileListener(os.NewFile(3, socketName))
	if err != nil {
		return err
	}
	server := &http.Server{Handler: Handler(os.Getenv("SERVER_STARTER_GENERATION"))}
	go server.Serve(ln) // until the shutdown
	<-ctx.Done()
	return server.Shutdown(context.Background())
}

const (
	// The clients of the plain app ask about once in half a second, so that it can be seen how they leave.
	plainClients  = 16
	plainThinkMin = 100 * time.Millisecond
	plainThinkMax = 900 * time.Millisecond
	plainSettle   = "100ms"

	loadInterval = 50 * time.Millisecond
)

// beside is what the demo has seen of the plain app: plain data.
type beside struct {
	why   string // why there is none
	open  []int  // by column: connections that the old generation still had
	tally load.Tally
}

// neighbor runs the plain app.
type neighbor struct {
	grace  *gracelog.Process
	client *control.Client // nil: the drain cannot be seen
	load   *load.Load
	open   chan int // answers of the client
	asking bool
}

// startNeighbor finds out first whether clients can be asked to leave: without that, requests of a plain app are lost.
func startNeighbor(ctx context.Context) (*neighbor, error) {
	announcer, err := farewell.Open()
	if err != nil {
		return nil, err
	}
	if err := announcer.Close(); err != nil {
		return nil, err
	}
	g, err := launchGrace(plainCommand, "--farewell", "auto", "--settle", plainSettle, "--listen", socketName+"=127.0.0.1:0?steer=true")
	if err != nil {
		return nil, err
	}
	n := &neighbor{grace: g, open: make(chan int, 1)}
	if err := n.begin(ctx, nameOf(plainCommand)); err != nil {
		_ = g.Stop(stopPatience)
		return nil, err
	}
	return n, nil
}

func (n *neighbor) begin(ctx context.Context, name string) error {
	s := &show{record: &record{}, grace: n.grace}
	addr, err := s.awaitStart(ctx)
	if err != nil {
		return err
	}
	if found, err := control.Find(name); err == nil {
		n.client = control.NewClient(found.Path)
		if err := n.awaitFarewell(ctx); err != nil {
			return err
		}
	}
	n.load, err = load.Start(ctx, load.Config{
		Addr: addr, Clients: map[load.Kind]int{load.KeepAliveGet: plainClients}, ThinkMin: plainThinkMin, ThinkMax: plainThinkMax,
	})
	return err
}

// awaitFarewell returns when clients can be asked: on a busy machine grace takes some time for that after its start.
func (n *neighbor) awaitFarewell(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startPatience, errors.New("grace has not loaded its programs into the kernel in time"))
	defer cancel()
	for {
		s, err := n.client.Status(ctx)
		switch {
		case err != nil:
			return cmp.Or(context.Cause(ctx), err)
		case s.Farewell == nil || s.Farewell.State == "on":
			return nil
		case s.Farewell.State != "loading":
			return errors.New(s.Farewell.Why)
		}
		select {
		case <-time.After(loadInterval):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// ask has the number of connections come that the old generation still has.
func (n *neighbor) ask(ctx context.Context) {
	if n == nil || n.client == nil || n.asking {
		return
	}
	n.asking = true
	go func() {
		s, err := n.client.Status(ctx)
		open := 0
		if err == nil && s.Farewell != nil {
			for _, g := range s.Farewell.Generations {
				open += g.Open
			}
		}
		n.open <- open
	}()
}

// mark says to its clients whether an upgrade is under way.
func (n *neighbor) mark(phase load.Phase) {
	if n != nil {
		n.load.Mark(phase)
	}
}

func (n *neighbor) upgrade() error {
	if n == nil {
		return nil
	}
	return n.grace.Cmd.Process.Signal(syscall.SIGHUP)
}

// log has nothing where there is no neighbor.
func (n *neighbor) log() <-chan gracelog.Entry {
	if n == nil {
		return nil
	}
	return n.grace.Log
}

func (n *neighbor) answers() <-chan int {
	if n == nil {
		return nil
	}
	return n.open
}

// stop returns what became of the requests.
func (n *neighbor) stop() (load.Tally, error) {
	tally := n.load.Stop()
	if n.client != nil {
		n.client.Close()
	}
	return tally, n.grace.Stop(stopPatience)
}

// levels draw a number as a part of a whole.
var levels = []rune("▁▂▃▄▅▆▇█")

// drain has a column for each moment: how many connections the old generation had, of all.
func (b beside) drain(columns int) string {
	row := []rune(strings.Repeat(" ", columns))
	for i, open := range b.open {
		if open > 0 && i < columns {
			row[i] = levels[min(len(levels)-1, (open*len(levels)-1)/plainClients)]
		}
	}
	return "  plain " + string(row)
}
