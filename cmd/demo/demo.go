// Package demo shows in a terminal what grace does: a web app under `grace run`, load from clients that never retry, and
// upgrades in the middle of it.
package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/gracerun/grace/cmd/fold"
	"github.com/gracerun/grace/cmd/load"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

const (
	thinkMin = 5 * time.Millisecond
	thinkMax = 30 * time.Millisecond
)

// options are the flags of the command.
type options struct {
	upgrades int
	duration time.Duration
	clients  int
	plain    bool
	slow     time.Duration // what a slow request takes
	beside   bool          // a plain app is upgraded too
}

// Command returns the demo as a command of the program. Its error, if any, is an Ended.
func Command() *cobra.Command {
	o := options{slow: time.Second, beside: true}
	c := &cobra.Command{
		Use:   "demo",
		Short: "Upgrade a small web app again and again under load, and count what fails",
		Long: `demo runs a small web app under grace, sends it requests from clients that never
retry, and upgrades it meanwhile. Beside it runs a plain app, net/http with Shutdown, that
knows nothing of grace: before an old generation of it ends, the kernel asks its clients to
close the connections that they keep. That needs the rights of --farewell, and is left out
without them. At the end the demo prints what it has counted; the exit status is 1 if
anything failed.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.validate(); err != nil {
				return err
			}
			return o.run()
		},
	}
	c.Flags().IntVar(&o.upgrades, "upgrades", 10, "how many times to upgrade the app")
	c.Flags().DurationVar(&o.duration, "duration", 20*time.Second, "how long to send requests")
	c.Flags().IntVar(&o.clients, "clients", 40, "how many clients send requests")
	c.Flags().BoolVar(&o.plain, "plain", false, "print plain lines, in a terminal too")
	return c
}

func (o options) validate() error {
	switch {
	case o.upgrades < 0:
		return errors.New("--upgrades cannot be negative")
	case o.duration < time.Second:
		return errors.New("--duration must be at least 1s")
	case o.clients < len(mix):
		return fmt.Errorf("--clients must be at least %d: one for each kind of client", len(mix))
	}
	return nil
}

// Ended is the end of a demo in which something failed, or that was interrupted; all has been said on stdout then.
type Ended struct{ Status int }

func (e Ended) Error() string { return fmt.Sprintf("the demo ended with status %d", e.Status) }

// ExitStatus is the status that the process has to exit with.
func (e Ended) ExitStatus() int { return e.Status }

var errInterrupted = errors.New("interrupted")

const (
	statusFailed      = 1
	statusInterrupted = 128 + int(syscall.SIGINT)
)

func (o options) run() error {
	// SIGPIPE comes when nobody reads stdout any more, and would end this process alone.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	defer stop()
	r, err := o.perform(ctx)
	r.paint = newPalette(o.live())
	fmt.Print(r.summary(err))
	switch {
	case r.failed():
		return Ended{statusFailed}
	case err == errInterrupted:
		return Ended{statusInterrupted}
	case err != nil:
		return Ended{statusFailed}
	}
	return nil
}

// live says whether to draw a picture that changes.
func (o options) live() bool {
	return !o.plain && os.Getenv("TERM") != "dumb" && term.IsTerminal(int(os.Stdout.Fd()))
}

// perform does the whole demo, and leaves no process behind. Its error says why it could not go on to the end.
func (o options) perform(ctx context.Context) (*record, error) {
	r := newRecord(o)
	if width := fold.Columns(os.Stdout); width > 0 {
		r.fit(width)
	}
	view := o.view()
	defer view.close()
	g, err := startGrace()
	if err != nil {
		return r, err
	}
	s := &show{record: r, grace: g, view: view}
	err = s.play(ctx)
	if ctx.Err() != nil {
		err = errInterrupted
	}
	if stopped := g.Stop(stopPatience); err == nil && stopped != nil {
		err = fmt.Errorf("grace failed: %w", stopped)
	}
	return r, err
}

// mix says how the clients divide into kinds, in parts of a hundred.
var mix = []struct {
	kind load.Kind
	part int
}{
	{load.NewConnection, 25},
	{load.KeepAliveGet, 30},
	{load.KeepAlivePost, 20},
	{load.Slow, 10},
	{load.Stream, 15},
}

// divide gives each kind its part, and at least one client.
func divide(clients int) map[load.Kind]int {
	counts := map[load.Kind]int{}
	left := clients
	for _, m := range mix {
		counts[m.kind] = max(1, clients*m.part/100)
		left -= counts[m.kind]
	}
	counts[load.KeepAliveGet] += left
	return counts
}
