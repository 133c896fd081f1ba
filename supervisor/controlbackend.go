package supervisor

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/gracerun/grace/childproc"
	"github.com/gracerun/grace/handoff/sockdiag"
	"github.com/gracerun/grace/handoff/socket"
	"github.com/gracerun/grace/supervisor/control"
	"github.com/gracerun/grace/supervisor/host"
	"github.com/gracerun/grace/supervisor/machine"
)

// controlBackend takes the requests of the control socket to the loop. What the machine does
// not know it asks the system, outside the loop.
type controlBackend struct {
	loop    *loop
	apps    *host.Host
	name    string
	version string // of grace
	started time.Time

	farewell control.Farewell // as grace was told, or can

	// uncapturing are the instances whose capture has ended with a grace process that was killed.
	uncapturing []int
}

// Ask implements [control.Backend].
func (d *controlBackend) Ask(ctx context.Context, r control.Request) (<-chan control.Line, error) {
	as, err := eventFor(r)
	if err != nil {
		return nil, err
	}
	lines := make(chan control.Line, linesKept)
	select {
	case d.loop.events <- asked{as: as, lines: lines}:
		return lines, nil
	case <-d.loop.done:
		return nil, control.ErrLeaving
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func eventFor(r control.Request) (func(request int) machine.Event, error) {
	switch r.Do {
	case control.Upgrade:
		return upgradeFor(r)
	case control.Scale:
		return func(request int) machine.Event {
			return machine.ScaleRequested{Request: request, Instances: r.Instances}
		}, nil
	case control.Promote:
		return func(request int) machine.Event { return machine.PromoteRequested{Request: request, Fully: r.Fully} }, nil
	case control.Rollback:
		return func(request int) machine.Event { return machine.UpgradeRequested{Request: request, Rollback: true} }, nil
	case control.Reexec:
		return func(request int) machine.Event { return machine.ReexecRequested{Request: request} }, nil
	case control.Release:
		return func(request int) machine.Event { return machine.ReleaseRequested{Request: request} }, nil
	case control.Signal:
		return func(request int) machine.Event {
			return machine.SignalReceived{Signal: r.Signal, Request: request}
		}, nil
	case control.Stop:
		if r.Now {
			return func(request int) machine.Event { return machine.KillRequested{Request: request} }, nil
		}
		return func(request int) machine.Event { return machine.StopRequested{Request: request} }, nil
	}
	return nil, errors.New("this version of grace does not know that request")
}

func upgradeFor(r control.Request) (func(request int) machine.Event, error) {
	ev := machine.UpgradeRequested{Command: r.Command}
	var errs []error
	if r.Canary != "" {
		steps, err := machine.ParseCanary(r.Canary)
		ev.Canary, errs = steps, append(errs, err)
	}
	if r.MaxSurge != "" {
		surge, err := machine.ParseSurge(r.MaxSurge)
		ev.MaxSurge, errs = &surge, append(errs, err)
	}
	return func(request int) machine.Event {
		ev.Request = request
		return ev
	}, errors.Join(errs...)
}

// Snapshot is what the machine knows.
func (d *controlBackend) Snapshot(ctx context.Context) (control.Status, error) {
	answer := make(chan control.Status, 1)
	select {
	case d.loop.statusRequests <- answer:
	case <-d.loop.done:
		return control.Status{}, control.ErrLeaving
	case <-ctx.Done():
		return control.Status{}, ctx.Err()
	}
	return <-answer, nil
}

// Status implements [control.Backend].
func (d *controlBackend) Status(ctx context.Context) (control.Status, error) {
	s, err := d.Snapshot(ctx)
	if err != nil {
		return s, err
	}
	s.Grace, s.Name, s.PID, s.Started = d.version, d.name, os.Getpid(), d.started
	select {
	case d.apps.Looks <- struct{}{}:
		defer d.apps.Looks.Release()
	case <-ctx.Done():
		return s, ctx.Err()
	}
	pids := map[int][]int{}
	for i := range s.Generations {
		g := &s.Generations[i]
		pids[g.Number] = append(pids[g.Number], d.count(g)...)
	}
	s.Listeners = d.listeners(s.Generations, pids)
	s.Farewell = farewellMessage(d.farewell, d.apps.Farewells)
	return s, nil
}

// count leaves out what cannot be seen, such as processes that have just ended, and
// gives the others.
func (d *controlBackend) count(g *control.Generation) (pids []int) {
	whole := true
	for n := range g.Instances {
		i := &g.Instances[n]
		i.Uncaptured = slices.Contains(d.uncapturing, i.ID)
		if i.PID == 0 {
			continue
		}
		tree, err := d.apps.Reaper.Tree(i.PID)
		if err != nil {
			whole = false
			continue
		}
		usage := childproc.Used(tree)
		i.Memory, i.CPU = usage.Resident, usage.CPU.Seconds()
		pids = append(pids, tree...)
	}
	if !whole {
		return pids
	}
	if connections, err := d.apps.InFlight(g.Number, pids); err == nil {
		g.Connections = &connections
	}
	return pids
}

// listeners has the processes by generation.
func (d *controlBackend) listeners(generations []control.Generation, pids map[int][]int) []control.Listener {
	all, everybody := []control.Listener{}, slices.Concat(slices.Collect(maps.Values(pids))...)
	all = append(all, held(d.apps.Listeners, everybody)...)
	if d.apps.Steering == nil {
		return all
	}
	for _, g := range generations {
		number := g.Number
		if number == 0 {
			number = machine.Foreign
		}
		all = append(all, d.steered(number, pids[g.Number])...)
	}
	return all
}

// held are those that all generations have.
func held(listeners []*socket.Listener, pids []int) []control.Listener {
	queues, err := sockdiag.QueuedEach(listeners)
	connections, err2 := sockdiag.ConnectionsEach(pids, listeners)
	var all []control.Listener
	for i, l := range listeners {
		listed := control.Listener{Name: l.Name(), Network: l.Network(), Address: l.Bound(), Kind: "held"}
		if err == nil && l.Stream() {
			listed.Queue = &queues[i]
		}
		if err2 == nil && l.Stream() {
			listed.Connections = &connections[i]
		}
		all = append(all, listed)
	}
	return all
}

// steered lists a generation's own sockets, those at the same address together.
func (d *controlBackend) steered(generation int, pids []int) []control.Listener {
	queues := d.apps.Steering.Queues(generation)
	var addresses []netip.AddrPort
	for _, queue := range queues {
		addresses = append(addresses, queue.Bound)
	}
	open, err := sockdiag.OpenAt(pids, addresses)
	names := map[string]string{}
	for _, l := range d.apps.Held {
		if l.Address().Steer {
			names[l.Bound()] = l.Name()
		}
	}
	var all []control.Listener
	for i, queue := range queues {
		listed := control.Listener{Network: "tcp", Address: queue.Bound.String(), Kind: "captured", Generation: shown(generation), Queue: &queue.Length}
		if queue.Path != "" {
			listed.Network, listed.Address = "unix", queue.Path
		} else if err == nil {
			listed.Connections = &open[i]
		}
		if name, ok := names[listed.Address]; ok {
			listed.Name, listed.Kind = name, "steered"
		}
		all = append(all, listed)
	}
	return all
}
