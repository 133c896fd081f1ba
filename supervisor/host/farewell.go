package host

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gracerun/grace/handoff/farewell"
	"github.com/gracerun/grace/handoff/socket"
	"github.com/gracerun/grace/supervisor/machine"
)

// Farewells has the clients of kept-alive connections leave before their generation is told to stop. It belongs to the
// loop.
type Farewells struct {
	leaving map[int]*leaving // by generation
	parting context.Context  // until no request is waited for any more
	part    context.CancelFunc
	open    context.Context // until all connections that are kept have to be closed
	cut     context.CancelFunc
	keeping era

	loading   sync.Once
	announcer atomic.Pointer[farewell.Announcer]
	failed    error
	why       atomic.Pointer[string] // failed, for any goroutine

	started sync.Map         // generation to *farewell.Farewell, for any goroutine
	batches sync.Map         // to the generation that each is of
	steps   sync.WaitGroup   // of all that leave
	heard   []netip.AddrPort // where the grace process before this one has seen HTTP/1
}

// era is of the keep actions that were begun between two hasten actions.
type era struct {
	patient context.Context // until they are hastened
	hurry   context.CancelFunc
	parting context.Context // until no request is waited for any more
	part    context.CancelFunc
	open    context.Context
	cut     context.CancelFunc
}

func (f *Farewells) newEra() {
	f.keeping.patient, f.keeping.hurry = context.WithCancel(f.open)
	f.keeping.parting, f.keeping.part = context.WithCancel(f.parting)
	f.keeping.open, f.keeping.cut = context.WithCancel(f.open)
}

// leaving is a generation whose clients leave. Its steps follow one another in a goroutine each.
type leaving struct {
	steps    sequence
	roots    atomic.Pointer[[]root] // stored by the loop; closed when the farewell has ended
	patient  context.Context        // as long as the next step is not wanted
	hurry    context.CancelFunc
	living   context.Context // as long as the generation has not ended
	end      context.CancelFunc
	farewell *farewell.Farewell // the steps'; nil where clients cannot be told
}

func NewFarewells() *Farewells {
	f := &Farewells{leaving: map[int]*leaving{}}
	f.parting, f.part = context.WithCancel(context.Background())
	f.open, f.cut = context.WithCancel(context.Background())
	f.newEra()
	return f
}

// Load makes the kernel ready the first time, which takes a processor some milliseconds. Any goroutine may call it.
func (f *Farewells) Load() (*farewell.Announcer, error) {
	f.loading.Do(func() {
		a, err := farewell.Open()
		if err != nil {
			why := err.Error()
			f.failed = err
			f.why.Store(&why)
			return
		}
		a.Believe(f.heard)
		f.announcer.Store(a)
	})
	return f.announcer.Load(), f.failed
}

// spoken is where HTTP/1 was seen, as far as it was looked. It waits for no look: one that is under way may wait for the
// Reaper, which the caller may have suspended.
func (f *Farewells) spoken() []netip.AddrPort {
	if a := f.announcer.Load(); a != nil {
		return a.Spoken()
	}
	return f.heard
}

// Learn looks where HTTP/1 is spoken. It waits for looks that are under way.
func (f *Farewells) Learn() {
	f.started.Range(func(_, leaving any) bool {
		leaving.(*farewell.Farewell).Learn()
		return true
	})
}

// Loaded tells whether the kernel is ready. Any goroutine may call it.
func (f *Farewells) Loaded() bool { return f.announcer.Load() != nil }

// Failure is why the kernel could not be made ready, or empty. Any goroutine may call it.
func (f *Farewells) Failure() string {
	if why := f.why.Load(); why != nil {
		return *why
	}
	return ""
}

// Named is the number that people know a generation by.
func (f *Farewells) Named(generation int) int {
	if of, ok := f.batches.Load(generation); ok {
		return of.(int)
	}
	return max(generation, 0)
}

// Counts are those of the generations whose clients leave, as the steps have looked last: a flood of questions must not
// delay the steps. Any goroutine may call it.
func (f *Farewells) Counts() map[int]farewell.Counts {
	found := map[int]farewell.Counts{}
	f.started.Range(func(generation, leaving any) bool {
		found[generation.(int)] = leaving.(*farewell.Farewell).Counts()
		return true
	})
	return found
}

// idle tells whether it is known of all connections that no request is worked on. Any goroutine may call it.
func (f *Farewells) idle(generation int) bool {
	leaving, ok := f.started.Load(generation)
	if !ok {
		return false
	}
	idle, err := leaving.(*farewell.Farewell).Idle()
	return err == nil && idle // one that has ended, or a kernel that does not tell, leaves it open
}

// do is the next step of one that leaves. It belongs to the loop.
func (f *Farewells) do(l *leaving, step func()) {
	f.steps.Add(1)
	l.steps.do(func() {
		defer f.steps.Done()
		step()
	})
}

// Close comes when no generation is left, and the loop has ended.
func (f *Farewells) Close() error {
	f.cut()
	for _, l := range f.leaving {
		l.end()
		l.hurry()
	}
	f.steps.Wait()
	f.loading.Do(func() { f.failed = farewell.ErrEnded })
	if a := f.announcer.Load(); a != nil {
		return a.Close()
	}
	return nil // that it could not be loaded was told when it was wanted
}

func newLeaving(pids []int) *leaving {
	l := &leaving{}
	l.addRoots(pids)
	l.patient, l.hurry = context.WithCancel(context.Background())
	l.living, l.end = context.WithCancel(context.Background())
	return l
}

func (l *leaving) addRoots(pids []int) {
	var known []root
	if roots := l.roots.Load(); roots != nil {
		known = *roots
	}
	all := withRoots(known, pids)
	l.roots.Store(&all)
}

// Announce posts departed also where clients cannot be told.
func (a *Host) Announce(x machine.Announce) {
	l, cutover := newLeaving(x.PIDs), a.sequence.rest()
	a.Farewells.leaving[x.Generation] = l
	cannot := fmt.Sprintf("cannot ask the clients of generation %d to leave", x.Generation)
	departed := func() { a.Post(machine.Departed{Generation: x.Generation}) }
	a.Farewells.do(l, Guard(func() {
		<-cutover
		a.ReportError(cannot, a.announce(l, x.Generation))
		a.Post(machine.Announced{Generation: x.Generation, Clients: l.busy()})
		if l.farewell != nil {
			_, err := l.farewell.Await(l.patient)
			a.ReportError(cannot, err)
		}
		departed()
	}, a.broken(cannot, departed)))
}

func (a *Host) broken(cannot string, then func()) func(why string) {
	return func(why string) {
		a.Notice(cannot)(why)
		then()
	}
}

func (a *Host) announce(l *leaving, generation int) error {
	addresses := a.addresses(generation)
	if len(addresses) == 0 {
		return nil
	}
	announcer, err := a.Farewells.Load()
	if err != nil {
		return err
	}
	pids := func() ([]int, error) { return a.below(*l.roots.Load()) }
	if l.farewell, err = announcer.Announce(farewell.Generation{Pids: pids, At: addresses, Shared: a.sharedListeners()}); err != nil {
		return err
	}
	a.Farewells.started.Store(generation, l.farewell)
	return l.farewell.Denied()
}

// busy is how many clients are about to ask again.
func (l *leaving) busy() int {
	if l.farewell == nil {
		return 0
	}
	return l.farewell.Counts().Busy
}

func (a *Host) sharedListeners() (fds []int) {
	for _, l := range a.Listeners {
		if strings.HasPrefix(l.Network(), "tcp") {
			fds = append(fds, l.FD())
		}
	}
	return fds
}

// addresses are where the generation accepts TCP connections.
func (a *Host) addresses(generation int) []netip.AddrPort {
	found := tcpAddresses(a.Listeners)
	if a.Steering != nil {
		found = append(found, a.Steering.Addresses(generation)...)
	}
	return found
}

func tcpAddresses(listeners []*socket.Listener) (found []netip.AddrPort) {
	for _, l := range listeners {
		if at, err := netip.ParseAddrPort(l.Bound()); err == nil && strings.HasPrefix(l.Network(), "tcp") {
			found = append(found, at)
		}
	}
	return found
}

func (a *Host) Hold(h machine.Hold) {
	l := a.Farewells.leaving[h.Generation]
	l.addRoots(h.PIDs)
	l.hurry()
	held := func() { a.Post(machine.Held{Generation: h.Generation}) }
	a.Farewells.do(l, Guard(func() {
		if l.farewell != nil {
			_, err := l.farewell.Hold(h.Answers)
			a.ReportError(fmt.Sprintf("cannot hold the connections of generation %d", h.Generation), err)
		}
		held()
	}, a.broken("cannot hold connections", held)))
}

// Keep posts kept always.
func (a *Host) Keep(k machine.Keep) {
	l, era := a.Farewells.leaving[k.Generation], a.Farewells.keeping
	l.hurry()
	var ends machine.ConnectionEnds
	kept := func() { a.Post(machine.Kept{Generation: k.Generation, Ends: ends}) }
	a.Farewells.do(l, Guard(func() {
		if l.farewell != nil {
			result, err := l.farewell.Keep(era.open, l.living, farewell.Keeping{
				Dial: dialGeneration, Patient: era.patient, Parting: era.parting, For: a.Options.Keep,
				Failed: func(err error) { a.Notice("cannot pass on the request of a kept connection")(err.Error()) },
			})
			a.ReportError(fmt.Sprintf("cannot keep the connections of generation %d", k.Generation), err)
			ends = machine.ConnectionEnds{Left: result.Left, Relayed: result.Relayed, Expired: result.Expired, Cut: result.Cut}
			a.Farewells.started.CompareAndDelete(k.Generation, l.farewell)
		}
		kept()
	}, a.broken("cannot keep connections", kept)))
}

// dialGeneration reaches whoever has new connections to the address now.
func dialGeneration(ctx context.Context, at netip.AddrPort) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", at.String())
}

func (a *Host) Recall(r machine.Recall) {
	l := a.Farewells.leaving[r.Generation]
	delete(a.Farewells.leaving, r.Generation)
	l.hurry()
	a.release(l, r.Generation)
}

// Part closes what is kept and silent. Requests that have come are answered by who drains, as long as that may take.
func (a *Host) Part(machine.Part) {
	a.Farewells.part()
	time.AfterFunc(a.Options.Policy.DrainTimeout, a.Farewells.cut)
}

// hastened is how long kept connections go on waiting for a request when a reexec waits for them. Clients that ask within
// --keep but later find them closed, as they would after --keep.
const hastened = 10 * time.Second

// Hasten leaves alone what begins later.
func (a *Host) Hasten(machine.Hasten) {
	a.Farewells.keeping.hurry()
	time.AfterFunc(min(hastened, a.Options.Policy.DrainTimeout/2), a.Farewells.keeping.part)
	time.AfterFunc(a.Options.Policy.DrainTimeout, a.Farewells.keeping.cut)
	a.Farewells.newEra()
}

// retireFarewell comes when nothing of a generation is left.
func (a *Host) retireFarewell(generation int) {
	l := a.Farewells.leaving[generation]
	if l == nil {
		a.Farewells.batches.Delete(generation)
		return
	}
	delete(a.Farewells.leaving, generation)
	l.end()
	l.hurry()
	a.release(l, generation)
}

// release is the last step.
func (a *Host) release(l *leaving, generation int) {
	cannot := fmt.Sprintf("cannot let the connections of generation %d go", generation)
	a.Farewells.do(l, Guard(func() {
		if l.farewell != nil {
			a.ReportError(cannot, l.farewell.Release())
			a.Farewells.started.CompareAndDelete(generation, l.farewell)
		}
		a.Farewells.batches.Delete(generation)
		closeRoots(*l.roots.Load())
	}, a.Notice(cannot)))
}
