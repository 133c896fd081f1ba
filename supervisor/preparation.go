package supervisor

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/gracerun/grace/supervisor/machine"
)

// preparation is a generation's launch, or the way to it.
type preparation struct {
	launch *launch
	ctx    context.Context // ends with the generation
	cancel context.CancelFunc
}

func newPreparation(l *launch) *preparation {
	ctx, cancel := context.WithCancel(context.Background())
	return &preparation{launch: l, ctx: ctx, cancel: cancel}
}

func (a *apps) prepare(order machine.Prepare) {
	p := newPreparation(nil)
	a.launches[order.Generation] = p
	kept, err := program(0), error(nil)
	if order.Again != nil {
		kept, err = a.kept(order.Again.Generation)
		a.attempt(err) // the file may be where it was
	}
	go func() {
		l, err := a.resolve(p.ctx, order, kept)
		if err != nil {
			a.post(machine.PrepareFailed{Generation: order.Generation, Why: err.Error(), Status: statusOf(err)})
			return
		}
		if l.stays != "" {
			a.post(machine.Noticed{Text: "the working directory stays what it was", Why: l.stays})
		}
		p.launch = l
		a.post(machine.Prepared{Generation: order.Generation, Recipe: l.recipe()})
	}()
}

func (a *apps) abandon(generation int) { a.launches[generation].cancel() }

// retire keeps the executable, until discard.
func (a *apps) retire(generation int) {
	p := a.launches[generation]
	p.cancel()
	if p.launch != nil {
		a.programs[generation] = p.launch.program
	}
	delete(a.launches, generation)
	a.retireSockets(generation)
}

func (a *apps) resolve(ctx context.Context, order machine.Prepare, kept program) (*launch, error) {
	ctx, cancel := context.WithTimeout(ctx, a.options.Policy.ReadyTimeout)
	defer cancel()
	l, err := a.lookUp(ctx, order, kept)
	if err != nil || a.options.Check == "" || order.Generation == 1 {
		return l, err
	}
	if err := a.check(ctx, l); err != nil {
		l.program.close()
		return nil, err
	}
	return l, nil
}

// lookUp gives up when ctx ends, as a file can be a pipe that nobody writes to, or far away: who
// waits for it in the kernel cannot be called back, and is left there.
func (a *apps) lookUp(ctx context.Context, order machine.Prepare, kept program) (*launch, error) {
	select {
	case a.lookUps <- struct{}{}:
	default:
		kept.close()
		return nil, fmt.Errorf("cannot look up the command and its files: %d look-ups before this one still wait (see whether the --env-file, or a file system, keeps its readers waiting)", cap(a.lookUps))
	}
	type finding struct {
		launch *launch
		err    error
	}
	found := make(chan finding)
	go func() {
		defer a.lookUps.leave()
		l, err := resolveOrder(a.options, order, kept)
		if err != nil {
			kept.close()
		}
		select {
		case found <- finding{l, err}:
		case <-ctx.Done():
			if err == nil {
				l.program.close()
			}
		}
	}()
	select {
	case f := <-found:
		return f.launch, f.err
	case <-ctx.Done():
		return nil, fmt.Errorf("cannot look up the command and its files: %w (see whether the --env-file, or a file system, keeps its readers waiting)", ctx.Err())
	}
}

const checkOutput = 4096

func (a *apps) check(ctx context.Context, l *launch) error {
	output, exit, err := a.family.Output(ctx, l.shell(a.options.Check), checkOutput)
	said := strings.TrimSpace(string(output))
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("--check did not end within %s: %s", a.options.Policy.ReadyTimeout, said)
	}
	if err != nil {
		return fmt.Errorf("cannot run --check: %w", err)
	}
	if exit.Status() != 0 {
		return fmt.Errorf("--check failed (%s): %s", exit, said)
	}
	return nil
}

func statusOf(err error) int {
	if e := (*launchError)(nil); errors.As(err, &e) {
		return e.status
	}
	return machine.StatusFailure
}
