package host

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/gracerun/grace/childproc"
	"github.com/gracerun/grace/supervisor/machine"
)

// restPause is how long those are given to close their listeners that a main process has passed the stop signal on to
// before it ended.
const restPause = 250 * time.Millisecond

// TellRest leaves out who was told already, as far as one can see: many programs cut what they finish when the
// signal comes again. The sockets of one that has crashed are for whoever comes.
func (a *Host) TellRest(t machine.TellRest) {
	app := a.Running[t.Instance]
	if t.Signal == syscall.SIGKILL {
		a.killRest(app)
		return
	}
	processes := slices.Clone(app.processes)
	var listening []uint64
	a.sequence.do(func() { listening = a.listening(app) })
	if t.Crashed {
		a.vacate(app)
	}
	turn := a.sequence.rest()
	app.task(func() {
		<-turn
		for _, p := range processes { // who has only launched the main process may live
			a.ReportError(fmt.Sprintf("cannot signal process %d", p.PID), p.Signal(t.Signal))
		}
		if !someLeft(processes) || pause(app.ctx, restPause) != nil {
			return
		}
		a.stopRest(app, processes, t, listening)
	})
}

// stopRest says whom it stops before it does: what has ended at once would be forgotten by then.
func (a *Host) stopRest(app *InstanceProcess, processes []*childproc.Process, t machine.TellRest, listening []uint64) {
	var rest []machine.Leftover
	var untold []childproc.Leftover
	defer func() { childproc.CloseRest(untold) }()
	for _, p := range processes {
		a.ReportError("cannot stop what the app left behind", a.insist(app, "cannot stop what the app left behind yet, trying again", func() error {
			its, toTell, err := sortRest(p, t, listening)
			rest, untold = append(rest, its...), append(untold, toTell...)
			return err
		}))
	}
	if len(rest) > 0 {
		a.Post(machine.Left{Instance: t.Instance, Rest: rest})
	}
	a.ReportError("cannot stop what the app left behind", childproc.SignalRest(untold, t.Signal))
}

// bypassAfter is how long a stop signal may wait in a main process until that is known not to take it.
const bypassAfter = time.Second

// bypass has the children told to stop where the main process does not take the signal, and so tells nobody; and theirs
// where they do not: a wrapper may have another one below it.
func (a *Host) bypass(app *InstanceProcess, signal syscall.Signal) {
	main := app.main()
	app.task(func() {
		if pause(app.ctx, bypassAfter) != nil {
			return
		}
		untold, err := main.Untold(signal)
		a.ReportError("cannot find the children of a process that ignores the stop signal", err)
		a.stopBypassed("the main process ignores or blocks the stop signal: sending the signal to its children", main.PID, untold, signal)
		for len(untold) > 0 && pause(app.ctx, bypassAfter) == nil {
			above := untold
			untold, err = childproc.Untold(above, signal)
			a.ReportError("cannot find the children of a process that ignores the stop signal", err)
			a.stopBypassed("a child of the main process ignores or blocks the stop signal: sending the signal to its children", above[0].PID, untold, signal)
			childproc.CloseRest(above)
		}
		childproc.CloseRest(untold)
	})
}

func (a *Host) stopBypassed(text string, by int, children []childproc.Leftover, signal syscall.Signal) {
	var told []machine.Leftover
	for _, c := range children {
		told = append(told, machine.Leftover{PID: c.PID, Command: c.Command, Told: true})
	}
	if len(told) > 0 {
		a.Post(machine.Noticed{Text: text, Why: fmt.Sprintf("process %d; its children are %s", by, ListRest(told))})
	}
	a.ReportError("cannot stop the children of a process that ignores the stop signal", childproc.SignalRest(children, signal))
}

func (a *Host) killRest(app *InstanceProcess) {
	for _, p := range app.processes {
		app.task(func() {
			a.ReportError("cannot kill what the app left behind", a.insist(app, "cannot kill what the app left behind yet, trying again", p.KillRest))
		})
	}
}

// insist goes on while something is short that passes, and says so once. Otherwise nobody would end what an instance has
// left behind, or wait for it.
func (a *Host) insist(app *InstanceProcess, text string, do func() error) error {
	told := false
	err := childproc.Retry(app.ctx.Done(), func() error {
		err := do()
		if childproc.Shortage(err) && !told {
			told = true
			a.Post(machine.Noticed{Text: text, Why: err.Error()})
		}
		return err
	})
	if errors.Is(err, childproc.ErrStopped) { // the instance has ended
		return nil
	}
	return err
}

// someLeft is true also where that cannot be told.
func someLeft(processes []*childproc.Process) bool {
	return slices.ContainsFunc(processes, func(p *childproc.Process) bool {
		rest, err := p.Rest()
		childproc.CloseRest(rest)
		return err != nil || len(rest) > 0
	})
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// sortRest lists what p has left behind, and those of them that have to be told to stop, which the caller closes.
func sortRest(p *childproc.Process, t machine.TellRest, listening []uint64) (rest []machine.Leftover, untold []childproc.Leftover, err error) {
	processes, err := p.Rest()
	if err != nil {
		return nil, nil, err
	}
	for _, r := range processes {
		told, finishing := t.Told && r.Group, false
		if !told {
			finishing, err = finishes(r, processes, listening)
		}
		if err != nil {
			childproc.CloseRest(processes)
			return nil, nil, err
		}
		if !told && !finishing {
			untold = append(untold, r)
		}
		rest = append(rest, machine.Leftover{PID: r.PID, Command: r.Command, Told: !finishing})
	}
	childproc.CloseRest(slices.DeleteFunc(processes, func(r childproc.Leftover) bool { return slices.Contains(untold, r) }))
	return rest, untold, nil
}

// finishes reports whether a process has closed the listeners, as one does that was told to stop, and has connections
// still, or writes the log of the others: a program that cannot write its log any more may be ended by that (SIGPIPE), with all its
// clients. One that cannot be looked into for another reason than a shortage does not.
func finishes(r childproc.Leftover, all []childproc.Leftover, listening []uint64) (bool, error) {
	if r.ReadsOutputOf(all) {
		return true, nil
	}
	has, err := r.Sockets()
	if childproc.Shortage(err) {
		return false, err
	}
	if err != nil || len(has) == 0 || len(listening) == 0 {
		return false, nil
	}
	return !slices.ContainsFunc(has, func(inode uint64) bool { return slices.Contains(listening, inode) }), nil
}

// listening are the sockets on which an instance serves.
func (a *Host) listening(app *InstanceProcess) []uint64 {
	var inodes []uint64
	for _, l := range a.Listeners {
		inodes = append(inodes, l.Inode())
	}
	if a.Steering == nil {
		return inodes
	}
	for _, s := range a.Steering.Sockets(app.generation) {
		inodes = append(inodes, s.Inode)
	}
	return inodes
}

// restListed is how many of them a line of the log has room for.
const restListed = 10

// ListRest names what an ended instance has left behind.
func ListRest(rest []machine.Leftover) string {
	var names []string
	for _, r := range rest[:min(len(rest), restListed)] {
		names = append(names, leftoverText(r))
	}
	if more := len(rest) - len(names); more > 0 {
		names = append(names, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(names, ", ")
}

func leftoverText(r machine.Leftover) string {
	if r.Told {
		return fmt.Sprintf("pid %d (%s)", r.PID, r.Command)
	}
	return fmt.Sprintf("pid %d (%s, which finishes by itself)", r.PID, r.Command)
}
