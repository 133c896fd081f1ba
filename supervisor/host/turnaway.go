package host

import (
	"context"
	"net/netip"
	"time"

	"github.com/gracerun/grace/handoff/sockdiag"
	"github.com/gracerun/grace/handoff/socket"
	"github.com/gracerun/grace/handoff/steering"
	"github.com/gracerun/grace/handoff/synfilter"
	"github.com/gracerun/grace/supervisor/machine"
)

const (
	// firstLook is late enough for a segment that another processor works on since before the last was dropped.
	firstLook = time.Millisecond
	// owedFor is how long an app may take to begin with a request. Go's Shutdown closes a connection whose first request it reads
	// after the stop signal (net/http's conn.serve).
	owedFor = 250 * time.Millisecond
	// unseenFor is the same where it cannot be seen, at a path.
	unseenFor = 50 * time.Millisecond
	// closesWithin is how long an app may take to close its listeners when it is told to stop.
	closesWithin = 500 * time.Millisecond
)

// TurnAway posts turnedAway always. What outlives the stop is let alone: clients wait in it for the next grace process.
func (a *Host) TurnAway(t machine.TurnAway) {
	ctx := a.Launches[t.Generation].ctx
	turnedAway := func() { a.Post(machine.TurnedAway(t)) }
	a.reaping.Go(Guard(func() { // which is waited for before the listeners are closed
		closed, doors := a.turnAway()
		a.awaitBegun(ctx, closed)
		turnedAway()
		a.closeDoors(ctx, doors)
	}, a.broken("cannot turn new connections away", turnedAway)))
}

// shutListener is one beside which a door stands.
type shutListener struct {
	at    netip.AddrPort
	inode uint64
	door  *steering.Door
}

// turnAway gives the listeners that get no new connections any more, and the doors that are to be closed.
func (a *Host) turnAway() (closed []*socket.Listener, doors []shutListener) {
	for _, l := range a.Listeners {
		if a.Stored && outlivesStop(l.Address()) {
			continue
		}
		away, err := l.TurnAway()
		a.ReportError("cannot turn new connections away", err)
		if !away {
			if door, ok := a.shut(l); ok {
				away, doors = true, append(doors, door)
			}
		}
		if away {
			closed = append(closed, l)
		}
	}
	return closed, doors
}

// shut is for a listener of which the kernel lets only those turn connections away that have CAP_NET_ADMIN. One that cannot be shut goes on, as it
// does for a service manager that has it too.
func (a *Host) shut(l *socket.Listener) (shutListener, bool) {
	at, err := netip.ParseAddrPort(l.Bound())
	if err != nil || l.Passed() || !l.Stream() || !l.Held() || synfilter.Of(l.FD()) != synfilter.None {
		return shutListener{}, false
	}
	door, err := steering.Shut(l.FD())
	if err != nil {
		a.Notice("cannot turn new connections away")(err.Error())
		return shutListener{}, false
	}
	return shutListener{at, l.Inode(), door}, true
}

// closeDoors has who connects refused when the app has closed the listeners. One that does not gets connections again, as the app decides then.
func (a *Host) closeDoors(ctx context.Context, doors []shutListener) {
	ctx, cancel := context.WithTimeout(ctx, closesWithin)
	defer cancel()
	for _, d := range doors {
		a.awaitNone(ctx, func() (int, error) {
			listening, err := sockdiag.InetHolding("tcp", d.at, false)
			if _, open := listening[d.inode]; open {
				return 1, err
			}
			return 0, err
		})
		a.ReportError("cannot close a listener of grace's own", d.door.Close())
	}
}

// awaitBegun returns when the app has accepted all that has come to the listeners, and begun with the requests. What cannot be seen is not waited
// for.
func (a *Host) awaitBegun(ctx context.Context, closed []*socket.Listener) {
	if len(closed) == 0 {
		return
	}
	addresses := tcpAddresses(closed)
	a.awaitNone(ctx, func() (int, error) { return unaccepted(closed, addresses) })
	if len(closed) > len(addresses) {
		_ = pause(ctx, unseenFor) // unless the generation ends
	}
	ctx, cancel := context.WithTimeout(ctx, owedFor)
	defer cancel()
	a.awaitNone(ctx, func() (int, error) { return sockdiag.Owed(addresses, owedFor) })
}

// awaitNone looks until there are none.
func (a *Host) awaitNone(ctx context.Context, count func() (int, error)) {
	for next := firstLook; pause(ctx, next) == nil; next = min(2*next, observePause) {
		n, err := count()
		a.ReportError("cannot see whether the app has accepted its clients", err)
		if n == 0 || err != nil {
			return
		}
	}
}

// unaccepted asks for handshakes first: one that ends meanwhile is in the queue then.
func unaccepted(closed []*socket.Listener, addresses []netip.AddrPort) (n int, err error) {
	going, err := sockdiag.Handshakes(addresses)
	if err != nil {
		return 0, err
	}
	for _, begun := range going {
		n += len(begun)
	}
	queued, err := sockdiag.QueuedEach(closed)
	for _, waiting := range queued {
		n += waiting
	}
	return n, err
}
