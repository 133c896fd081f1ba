package host

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/gracerun/grace/supervisor/deadline"
	"github.com/gracerun/grace/supervisor/machine"
)

// Preparation is a generation's launch, or the way to it.
type Preparation struct {
	Launch   *LaunchSpec
	resolved chan struct{}   // closed when there is a launch
	ctx      context.Context // ends with the generation
	cancel   context.CancelFunc
	leaves   bool // nothing new comes to it, for good
	of       int  // the generation that it is a batch of, whose launch it has too; 0: none
}

func NewPreparation(l *LaunchSpec) *Preparation {
	p := &Preparation{Launch: l, resolved: make(chan struct{})}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	if l != nil {
		close(p.resolved)
	}
	return p
}

// launch is nil while there is none: a generation that is given up before may get one yet.
func (p *Preparation) launch() *LaunchSpec {
	select {
	case <-p.resolved:
		return p.Launch
	default:
		return nil
	}
}

func (a *Host) Prepare(order machine.Prepare) {
	p := NewPreparation(nil)
	a.Launches[order.Generation] = p
	kept, err := Program(0), error(nil)
	if order.Again != nil {
		kept, err = a.kept(order.Again.Generation)
		a.ReportError("cannot start the executable that was kept", err) // the file may be where it was
	}
	first := a.First
	a.First = nil
	go func() {
		l, err := first, error(nil)
		if first == nil {
			l, err = a.resolve(p.ctx, order, kept)
		}
		if err != nil {
			a.Post(machine.PrepareFailed{Generation: order.Generation, Why: err.Error(), Status: StatusOf(err)})
			return
		}
		if l.stays != "" {
			a.Post(machine.Noticed{Text: "the working directory was not changed", Why: l.stays})
		}
		p.Launch = l
		close(p.resolved)
		a.Post(machine.Prepared{Generation: order.Generation, Launch: l.LaunchSpec})
	}()
}

func (a *Host) Abandon(w machine.Abandon) { a.Launches[w.Generation].cancel() }

// Retire keeps the executable, until discard.
func (a *Host) Retire(r machine.Retire) {
	p := a.Launches[r.Generation]
	p.cancel()
	if l := p.launch(); l != nil && p.of == 0 {
		a.Programs[r.Generation] = l.Program
	}
	delete(a.Launches, r.Generation)
	a.retireFarewell(r.Generation)
	a.retireSockets(r.Generation)
}

func (a *Host) resolve(ctx context.Context, order machine.Prepare, kept Program) (*LaunchSpec, error) {
	ctx, cancel := deadline.Context(ctx, a.Options.Policy.ReadyTimeout)
	defer cancel()
	l, err := a.lookUp(ctx, order, kept)
	if err != nil || a.Options.Check == "" || order.Generation == 1 {
		return l, err
	}
	if err := a.check(ctx, l); err != nil {
		l.Program.Close()
		return nil, err
	}
	return l, nil
}

// lookUp gives up when ctx ends, as a file can be a pipe that nobody writes to, or far away: who
// waits for it in the kernel cannot be called back, and is left there.
func (a *Host) lookUp(ctx context.Context, order machine.Prepare, kept Program) (*LaunchSpec, error) {
	select {
	case a.LookUps <- struct{}{}:
	default:
		kept.Close()
		return nil, fmt.Errorf("cannot look up the command and its files: %d earlier look-ups have not ended (check whether reading the --env-file or a file system blocks)", cap(a.LookUps))
	}
	type finding struct {
		launch *LaunchSpec
		err    error
	}
	found := make(chan finding)
	go func() {
		defer a.LookUps.Release()
		l, err := resolveOrder(a.Options, order, kept)
		if err != nil {
			kept.Close()
		}
		select {
		case found <- finding{l, err}:
		case <-ctx.Done():
			if err == nil {
				l.Program.Close()
			}
		}
	}()
	select {
	case f := <-found:
		return f.launch, f.err
	case <-ctx.Done():
		return nil, fmt.Errorf("cannot look up the command and its files: %w (check whether reading the --env-file or a file system blocks)", context.Cause(ctx))
	}
}

const checkOutput = 4096

func (a *Host) check(ctx context.Context, l *LaunchSpec) error {
	output, exit, err := a.Reaper.Output(ctx, l.shell(a.Options.Check), checkOutput)
	said := strings.TrimSpace(string(output))
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("--check did not end within %s: %s", a.Options.Policy.ReadyTimeout, said)
	}
	if err != nil {
		return fmt.Errorf("cannot run --check: %w", err)
	}
	if exit.Status() != 0 {
		return fmt.Errorf("--check failed (%s): %s", exit, said)
	}
	return nil
}

func StatusOf(err error) int {
	if e := (*launchError)(nil); errors.As(err, &e) {
		return e.status
	}
	return machine.StatusFailure
}
