package machine

import (
	"fmt"
	"maps"
	"slices"
	"syscall"
	"testing"
	"time"
)

// world is what a machine acts on, with all that could happen in it, and the
// oracle of the invariants in doc.go.
type world struct {
	t         *testing.T
	m         *Machine
	at        time.Time
	preparing map[int]Prepare
	starting  map[int]bool
	processes map[int]*process // by pid
	instances map[int]bool     // started and not released
	armed     map[int]Timer
	due       map[int]time.Time // of the timers
	stale     []Timer
	told      map[int]bool      // generations that were told to drain
	extended  map[int]bool      // instances that have asked for more time
	began     map[int]time.Time // when they began to empty or drain
	asked     map[int]bool      // requests that have no answer
	leaving   bool              // a handover has no answer
	requests  int
	observed  map[int]bool  // generations that are observed
	lookedAt  map[int][]int // their processes that are
	retired   map[int]bool  // generations
	prepared  map[int]bool  // generations whose executables are kept
	patience  map[int]time.Duration
	announced map[int]bool // generations whose clients were asked to leave
	departing map[int]bool // which have no answer
	holding   map[int]bool
	turning   map[int]bool
	keeping   map[int]bool
	steered   Steer   // where new connections go
	ordered   Steer   // where they were ordered to go last
	cutovers  []Steer // where they are to go, one after another
	examined  map[int]bool
	slow      bool // cutovers wait for answerSteer, and stops for turnedAway
	closed    bool // nobody gets any more
	pids      int
	foreign   map[int]bool // pids of what grace has not started
	restarted []time.Time  // what counts against the limit
	happening Event
	seen      []Action
	finished  bool
	status    int
}

type process struct {
	pid, instance int
	ended, killed bool
}

func newWorld(t *testing.T, p Policy) *world {
	w := &world{
		t: t, m: NewMachine(p), at: time.Unix(1e9, 0),
		preparing: map[int]Prepare{}, retired: map[int]bool{}, starting: map[int]bool{}, processes: map[int]*process{},
		instances: map[int]bool{}, armed: map[int]Timer{}, due: map[int]time.Time{}, told: map[int]bool{}, began: map[int]time.Time{}, extended: map[int]bool{}, asked: map[int]bool{},
		examined: map[int]bool{}, foreign: map[int]bool{}, announced: map[int]bool{}, departing: map[int]bool{}, holding: map[int]bool{}, turning: map[int]bool{}, keeping: map[int]bool{},
		prepared: map[int]bool{}, observed: map[int]bool{}, lookedAt: map[int][]int{}, patience: map[int]time.Duration{},
	}
	w.takeAll(w.m.Begin(w.at))
	return w
}

func (w *world) happen(ev Event) {
	w.t.Helper()
	serving, answering, ready := w.serving(), w.answering(), w.ready()
	upgrading := w.m.candidate != nil || w.m.pending != nil
	w.at, w.happening = w.at.Add(time.Millisecond), ev
	actions := w.m.Step(w.at, ev)
	w.trace(ev, actions)
	w.checkServing(serving, actions)
	w.checkStop(serving, actions)
	w.checkStarts(ev, actions)
	w.checkAnswering(answering, ev)
	w.checkCutover(ready, ev, actions)
	w.checkRestarts(upgrading, ev, actions)
	w.checkRolling(ready, actions)
	w.takeAll(actions)
	w.checkGenerations()
	for !w.slow && len(w.cutovers) > 0 {
		w.answerSteer("")
	}
	for generation := range w.turning {
		if !w.slow {
			w.turnedAway(generation)
		}
	}
}

// checkRestarts is invariant 16.
func (w *world) checkRestarts(upgrading bool, ev Event, actions []Action) {
	w.t.Helper()
	limit := w.m.policy.RestartLimit
	if _, ended := ev.(Exited); !ended || upgrading || limit.Restarts == 0 {
		return
	}
	for _, a := range actions {
		r, ok := a.(Report)
		if exit, because := r.Why.(Exit); !ok || r.Fact != InstanceRestarting || !because || exit.Shortage {
			continue
		}
		w.restarted = slices.DeleteFunc(w.restarted, func(at time.Time) bool { return w.at.Sub(at) >= limit.Within })
		if w.restarted = append(w.restarted, w.at); len(w.restarted) > limit.Restarts {
			w.t.Fatalf("%d restarts at %v", len(w.restarted), w.restarted)
		}
	}
}

// serving is the instances that are ready in the current generation.
func (w *world) serving() map[int]bool {
	ready := map[int]bool{}
	if w.m.current == nil || w.m.current.Stage != StageCurrent {
		return ready
	}
	for id, generation := range w.ready() {
		if generation == w.m.current {
			ready[id] = true
		}
	}
	return ready
}

// ready has the generation of each instance that is.
func (w *world) ready() map[int]*generation {
	all := map[int]*generation{}
	for id, i := range w.m.instances {
		if i.Phase == PhaseReady {
			all[id] = i.generation
		}
	}
	return all
}

// checkCutover is invariant 12.
func (w *world) checkCutover(ready map[int]*generation, ev Event, actions []Action) {
	w.t.Helper()
	late, _ := ev.(TimerExpired)
	for _, a := range actions {
		stop, ok := a.(Tell)
		if !ok || stop.Signal != w.m.policy.StopSignal || ready[stop.Instance] == nil || w.m.mode >= stopping || w.m.current == nil { // which was stopping, and was killed
			continue
		}
		g := ready[stop.Instance]
		overdue := func(r Report) bool { return r.Generation == g.Named() }
		if len(w.said(SteeringFailed)) > 0 || slices.ContainsFunc(w.said(EmptyTimedOut), overdue) {
			continue // the kernel sends connections where it wants, or does not say so for long
		}
		own := w.m.policy.Steered && (!w.m.policy.Shared || g.Opened)
		if own && w.mayGet(g.Number, actions) && late.Timer.leaving != g.Number && !late.Timer.cutover {
			w.t.Fatalf("instance %d is told to stop for %T%+v, and new connections may go to it", stop.Instance, ev, ev)
		}
	}
}

// mayGet reports whether a generation gets new connections, or is to get some before the last cutover.
func (w *world) mayGet(generation int, actions []Action) bool {
	gets := func(s Steer) bool { return s.Generation == generation || s.Beside == generation }
	ordered := func(a Action) bool { s, ok := a.(Steer); return ok && gets(s) }
	return slices.ContainsFunc(actions, ordered) || gets(w.steered) || slices.ContainsFunc(w.cutovers, gets)
}

// checkServing is invariant 2: who serves is told to stop only for a successor,
// for the end of all, or because the watchdog found it dead.
func (w *world) checkServing(serving map[int]bool, actions []Action) {
	w.t.Helper()
	for _, a := range actions {
		stop, ok := a.(Tell)
		if !ok || !serving[stop.Instance] || stop.Signal != w.m.policy.StopSignal {
			continue
		}
		i := w.m.instances[stop.Instance]
		if w.m.mode != stopping && (w.m.current == nil || w.m.current == i.generation) {
			w.t.Fatalf("instance %d serves and was told to stop without a successor", stop.Instance)
		}
	}
}

// checkStop is invariant 10: who serves on sockets of his own is not told to stop in the moment
// in which grace is.
func (w *world) checkStop(serving map[int]bool, actions []Action) {
	w.t.Helper()
	for _, a := range actions {
		stop, ok := a.(Tell)
		if ok && serving[stop.Instance] && slices.Contains(actions, Action(Steer{})) && !w.m.policy.Shared {
			w.t.Fatalf("instance %d was told to stop with all that waits for it", stop.Instance)
		}
	}
}

// checkStarts is half of invariant 11: what was replaced is started again only for who waits.
func (w *world) checkStarts(ev Event, actions []Action) {
	w.t.Helper()
	for _, a := range actions {
		again, ok := a.(Start)
		if !ok || !w.m.find(again.Generation).leaving() {
			continue
		}
		if ev != (Awaited{again.Generation}) {
			w.t.Fatalf("instance %d of generation %d, which was replaced, is started for %T", again.Instance, again.Generation, ev)
		}
	}
}

// answering are the generations that were replaced and accept what waits, or would.
func (w *world) answering() map[int]bool {
	found := map[int]bool{}
	for _, g := range w.m.generations {
		if g.Stage == StageSettling || g.Stage == StageWarm || g.Stage == StageEmptying {
			found[g.Number] = w.m.emptiesFirst(g)
		}
	}
	return found
}

// checkAnswering is the other half: it is not told to stop as long as somebody may wait, unless
// its time is over or nobody is to be started again.
func (w *world) checkAnswering(answering map[int]bool, ev Event) {
	w.t.Helper()
	for generation, answers := range answering {
		if answers && w.draining(generation) && !w.endsAnswering(generation, ev) {
			w.t.Fatalf("generation %d is told to stop for %T%+v", generation, ev, ev)
		}
	}
}

func (w *world) endsAnswering(generation int, ev Event) bool {
	if w.m.mode >= stopping {
		return true
	}
	switch ev := ev.(type) {
	case Quieted:
		return ev.Generation == generation && w.allLookedAt(ev)
	case TimerExpired:
		return ev.Timer.leaving == generation
	case Exited: // one that is killed for a fault is started again whatever its status
		return generation == Foreign || w.undone(generation) || !w.m.policy.Restart.wants(ev.Exit.Failed())
	case StartFailed:
		return w.undone(generation) || !w.m.policy.Restart.wants(true)
	}
	return false
}

// undone: nothing is started again in a generation that has failed.
func (w *world) undone(generation int) bool {
	if u := w.m.undone; u != nil && u.generation.Number == generation {
		return true // it is told of when connections have gone back
	}
	if g := w.m.find(generation); g != nil && g.failure != nil {
		return true // grace was killed before it could tell
	}
	return slices.ContainsFunc(w.said(UpgradeUndone), func(r Report) bool { return r.Generation == generation })
}

func (w *world) allLookedAt(ev Quieted) bool {
	g := w.m.find(ev.Generation)
	return g == nil || !slices.ContainsFunc(g.pids(), func(pid int) bool { return !slices.Contains(ev.PIDs, pid) })
}

func (w *world) draining(generation int) bool {
	g := w.m.find(generation)
	return g == nil || g.Stage >= StageClosing
}

// checkRolling is invariant 17.
func (w *world) checkRolling(ready map[int]*generation, actions []Action) {
	w.t.Helper()
	roll := w.m.rolling
	begun := func(a Action) bool { s, ok := a.(Start); return ok && roll != nil && s.Generation == roll.Number }
	if slices.ContainsFunc(actions, begun) && w.m.room() < 0 {
		w.t.Fatalf("%d more instances run than may: %+v", -w.m.room(), actions)
	}
	moved := func(a Action) bool {
		r, ok := a.(Regroup)
		return ok && slices.ContainsFunc(r.Moves, func(move Move) bool { return ready[move.Instance] != nil })
	}
	if roll == nil || !slices.ContainsFunc(actions, moved) {
		return
	}
	least := roll.Size
	if roll.Roll.Surge == 0 {
		least--
	}
	if n := w.m.current.readies() + roll.readies(); n < least {
		w.t.Fatalf("%d instances are left to serve, of %d: %+v", n, roll.Size, actions)
	}
}

// shareDue is what a generation is to get.
func (w *world) shareDue(g *generation) Share {
	switch old := w.m.current.readies(); {
	case g.Roll == nil:
		return g.Canary[g.Step].Share
	case old == 0 || g.readies() == 0:
		return g.Share
	default:
		return Whole * Share(g.readies()) / Share(g.readies()+old)
	}
}

// wellShared is invariant 16, for an order.
func (w *world) wellShared(s Steer) bool {
	g := w.m.find(s.Beside)
	return g != nil && g.Stage == StageSharing && s.Share > 0 && s.Share == w.shareDue(g)
}

// checkSharing is invariant 16.
func (w *world) checkSharing(g *generation) {
	w.t.Helper()
	if g.Stage != StageSharing || w.m.mode >= stopping {
		return
	}
	if w.m.current == nil || w.m.current.Stage != StageCurrent || !w.m.current.alive() && g.Roll == nil || w.told[w.m.current.Number] {
		w.t.Fatalf("generation %d shares, and there is no way back: %+v after %T%+v", g.Number, w.m.current, w.happening, w.happening)
	}
	if w.m.policy.Steered && (w.ordered.Beside != g.Number || w.ordered.Share != w.shareDue(g)) {
		w.t.Fatalf("generation %d is to have a share of %s, and was given %+v", g.Number, w.shareDue(g), w.ordered)
	}
}

func (w *world) checkGenerations() {
	w.t.Helper()
	candidates := 0
	for _, g := range w.m.generations {
		switch g.Stage {
		case StagePreparing, StageCandidate, StageSharing:
			candidates++
			w.checkSharing(g)
			if w.told[g.Number] {
				w.t.Fatalf("generation %d came back from its end", g.Number)
			}
		case StageDraining:
			w.told[g.Number] = true
		case StageClosing:
			if !w.announced[g.Number] && !w.turning[g.Number] || w.told[g.Number] {
				w.t.Fatalf("generation %d is closing, and its clients were not asked to leave", g.Number)
			}
		case StageSettling, StageWarm, StageEmptying:
			if w.ordered.Generation == 0 || w.told[g.Number] {
				w.t.Fatalf("generation %d is %s", g.Number, g.Stage)
			}
		case StageCurrent:
			if w.told[g.Number] {
				w.t.Fatalf("generation %d was told to stop and is promoted", g.Number)
			}
		case StageEnded:
			w.t.Fatalf("generation %d has ended and is kept", g.Number)
		}
	}
	if w.m.current != nil && w.m.current.Stage != StageCurrent {
		w.t.Fatalf("generation %d is current and %s", w.m.current.Number, w.m.current.Stage)
	}
	w.checkSteering()
	w.checkPlaces()
	w.checkBudget()
	if candidates > 1 {
		w.t.Fatalf("%d candidates at once", candidates)
	}
}

// checkBudget is invariant 13, as long as no timer is late.
func (w *world) checkBudget() {
	w.t.Helper()
	for _, g := range w.m.generations {
		if g.Stage < StageEmptying || g.Stage == StageClosing && !g.emptied() || g.foreign() { // of which a process can be found later
			continue
		}
		if w.began[g.Number].IsZero() {
			w.began[g.Number] = w.at
		}
		if w.at.Sub(w.began[g.Number]) > w.m.policy.emptyTime() {
			continue
		}
		end := w.began[g.Number].Add(w.m.policy.DrainTimeout)
		for _, i := range g.instances {
			if i.Phase == PhaseDraining && !w.extended[i.ID] && i.deadline.After(end) {
				w.t.Fatalf("instance %d is killed %s after --drain-timeout", i.ID, i.deadline.Sub(end))
			}
		}
	}
}

// checkPlaces: an instance that has ended is started again once.
func (w *world) checkPlaces() {
	w.t.Helper()
	type place struct{ generation, slot int }
	taken := map[place]int{}
	for _, i := range w.m.instances {
		at := place{i.generation.Number, i.Slot}
		if other := taken[at]; other != 0 && !i.Ended {
			w.t.Fatalf("instances %d and %d have the same place", other, i.ID)
		}
		if !i.Ended {
			taken[at] = i.ID
		}
	}
}

// checkSteering: connections go to the generation that serves, and one that is
// told to stop is not it.
func (w *world) checkSteering() {
	w.t.Helper()
	if w.m.policy.Steered && w.m.current != nil && w.ordered.Generation != w.m.current.Number {
		w.t.Fatalf("generation %d is current, and connections are sent to %+v", w.m.current.Number, w.ordered)
	}
}

func (w *world) takeAll(actions []Action) {
	w.t.Helper()
	for _, a := range actions {
		if w.finished {
			w.t.Fatalf("%T after the end", a)
		}
		w.take(a)
		w.seen = append(w.seen, a)
	}
}

func (w *world) take(a Action) {
	w.t.Helper()
	switch a := a.(type) {
	case Prepare:
		w.need(a.Again == nil || w.prepared[a.Again.Generation], a)
		w.preparing[a.Generation] = a
	case Abandon:
		w.need(w.preparing[a.Generation].Generation != 0, a)
	case Start:
		w.need(!w.instances[a.Instance] && !w.retired[a.Generation], a)
		w.starting[a.Instance], w.instances[a.Instance] = true, true
	case Follow:
		w.need(w.foreign[a.PID] && !w.instances[a.Instance], a)
		w.processes[a.PID], w.instances[a.Instance] = &process{pid: a.PID, instance: a.Instance}, true
		if !w.m.served { // who is found late gets none
			w.steered, w.ordered = Steer{Generation: Foreign}, Steer{Generation: Foreign}
		}
	case Leave:
		w.leaveForeign()
	case Detach:
		w.need(len(w.m.generations) == 1 && len(w.starting)+len(w.preparing)+len(w.keeping) == 0, a)
		clear(w.processes)
		clear(w.instances)
		clear(w.prepared)
	case Dismiss:
		w.need(w.instances[a.Instance], a)
	case Tell:
		w.need(w.hasProcess(a.Instance), a)
	case TellGroup:
		w.need(w.hasProcess(a.Instance) && w.m.policy.StopGroup, a)
	case TellRest:
		i := w.m.instances[a.Instance] // or what grace has not started, and leaves alone
		w.need(w.hasProcess(a.Instance) && (i == nil || i.Ended), a)
	case Kill:
		w.need(w.hasProcess(a.Instance), a)
		w.markKilled(a.Instance)
	case Reap:
		p := w.processes[a.PID]
		w.need(p != nil && p.ended && p.instance == a.Instance, a)
		delete(w.processes, a.PID)
	case Branch:
		w.need(a.Generation < Foreign && w.m.find(a.Of) != nil, a)
	case Regroup:
		for _, move := range a.Moves {
			w.need(w.instances[move.Instance] && w.hasProcess(move.Instance), a)
		}
	case Release:
		w.need(!w.hasProcess(a.Instance) && !w.starting[a.Instance], a)
		delete(w.instances, a.Instance)
	case Steer:
		g := w.m.find(a.Generation)
		w.need(w.m.policy.Steered && !w.closed && (a.Generation == 0 && w.m.mode >= stopping || g != nil && g.Stage == StageCurrent), a)
		w.need(a.Beside == 0 && a.Share == 0 || w.wellShared(a), a)
		w.closed, w.cutovers = a.Generation == 0, append(w.cutovers, a)
		if a.Beside == 0 {
			clear(w.examined)
		}
		if !w.closed {
			w.ordered = a
		}
	case Examine:
		w.need(w.m.policy.Examined && !w.examined[a.Generation] && a.Beside == w.m.current.Number, a)
		w.examined[a.Generation] = true
	case TurnAway:
		w.need(w.m.mode >= stopping && w.m.policy.Shared && !w.turning[a.Generation] && !w.m.serveBeside(w.m.find(a.Generation)), a)
		w.turning[a.Generation] = true
	case LetGo:
		w.need(w.m.mode >= stopping && w.draining(a.Generation) && (!a.Shared || !w.m.serveBeside(w.m.find(a.Generation))), a)
	case Observe:
		w.need(!w.observed[a.Generation], a)
		w.observed[a.Generation], w.lookedAt[a.Generation], w.patience[a.Generation] = true, a.PIDs, a.Idle
	case Announce:
		w.need(!w.announced[a.Generation] && len(a.PIDs) > 0, a)
		w.announced[a.Generation], w.departing[a.Generation] = true, true
	case Recall:
		w.need(w.announced[a.Generation] && !w.holding[a.Generation], a)
		delete(w.announced, a.Generation)
		delete(w.departing, a.Generation)
	case Hold:
		w.need(w.announced[a.Generation] && !w.holding[a.Generation] && w.m.succeeded(w.m.find(a.Generation)), a)
		w.holding[a.Generation] = true
		delete(w.departing, a.Generation)
	case Keep:
		w.need(w.announced[a.Generation] && !w.keeping[a.Generation], a)
		w.keeping[a.Generation] = true
		delete(w.departing, a.Generation)
	case Hasten:
		w.need(w.m.reexec != nil && len(w.keeping) > 0, a)
	case Part:
		w.need(w.m.mode >= stopping && w.m.policy.Farewell > 0, a)
	case Retire:
		w.need(!w.retired[a.Generation], a)
		delete(w.departing, a.Generation)
		w.retired[a.Generation] = true
		delete(w.observed, a.Generation)
	case Discard:
		w.need(w.retired[a.Generation], a)
		delete(w.prepared, a.Generation)
	case Count, Report:
	case Arm:
		w.need(a.After > 0 && w.armed[a.Timer.Number] == Timer{}, a)
		w.armed[a.Timer.Number], w.due[a.Timer.Number] = a.Timer, w.at.Add(a.After)
	case Disarm:
		w.stale = append(w.stale, a.Timer)
		delete(w.armed, a.Timer.Number)
	case HandOver:
		w.need(!w.leaving && w.m.Calm(), a)
		w.leaving = true
	case Answer:
		w.need(w.asked[a.Request] && w.plausible(a.Result), a)
		delete(w.asked, a.Request)
	case Finish:
		w.checkFinish()
		w.finished, w.status = true, a.Status
	default:
		w.t.Fatalf("unknown action %T", a)
	}
}

func (w *world) need(ok bool, a Action) {
	w.t.Helper()
	if !ok {
		w.t.Fatalf("impossible action %T%+v", a, a)
	}
}

// checkFinish is invariant 4.
func (w *world) checkFinish() {
	w.t.Helper()
	if len(w.processes)+len(w.starting)+len(w.preparing)+len(w.instances)+len(w.armed)+len(w.asked)+len(w.prepared) > 0 {
		w.t.Fatalf("finished with processes %v, starting %v, preparing %v, instances %v, timers %v, requests %v, executables %v",
			w.processes, w.starting, w.preparing, w.instances, w.armed, w.asked, w.prepared)
	}
}

// leaveForeign is invariant 15.
func (w *world) leaveForeign() {
	for pid, p := range w.processes {
		if w.foreign[pid] {
			w.need(!p.killed && w.m.instances[p.instance] == nil, Leave{})
			delete(w.processes, pid)
			delete(w.instances, p.instance)
		}
	}
}

// find has a server there that grace has not started.
func (w *world) find() {
	w.pids++
	w.foreign[w.pids] = true
	w.happen(Found{Servers: []Server{{Slot: w.pids, PID: w.pids}}, Launch: LaunchSpec{Command: []string{"old"}}, Signal: syscall.SIGQUIT})
}

// plausible: who is told that a generation serves can rely on it.
func (w *world) plausible(r Result) bool {
	if r.Outcome != OutcomeUpgraded {
		return true
	}
	if w.m.mode == stopping {
		return true
	}
	serves := w.m.current != nil && r.Generation == w.m.current.Number
	if late, ok := w.happening.(TimerExpired); serves && w.m.policy.Steered && len(w.cutovers) > 0 {
		return ok && late.Timer.cutover // there is nobody to give connections back to
	}
	return r.Serving == r.Generation && (serves || w.mayGet(r.Generation, nil)) // until the next action
}

// ask gives a request its number.
func (w *world) ask() int {
	w.requests++
	w.asked[w.requests] = true
	return w.requests
}

// found is what the fakes find.
func found(p Prepare) LaunchSpec {
	if p.Again != nil {
		return *p.Again
	}
	return LaunchSpec{Command: p.Command, Path: "/app", Executable: "/app", Dir: "/"}
}

func (w *world) hasProcess(instance int) bool {
	for _, p := range w.processes {
		if p.instance == instance {
			return true
		}
	}
	return false
}

func (w *world) markKilled(instance int) {
	for _, p := range w.processes {
		if p.instance == instance {
			p.killed = true
		}
	}
}

// What can happen.

func (w *world) answerPrepare(generation int, ok bool) {
	order := w.preparing[generation]
	delete(w.preparing, generation)
	if ok {
		w.prepared[generation] = true
		w.happen(Prepared{generation, found(order)})
		return
	}
	w.happen(PrepareFailed{generation, "check failed", 1})
}

func (w *world) answerStart(instance int, ok bool) {
	delete(w.starting, instance)
	if !ok {
		w.happen(StartFailed{instance, Exit{Code: 1, NotRun: "no process is left", Shortage: true}})
		return
	}
	w.pids++
	w.processes[w.pids] = &process{pid: w.pids, instance: instance}
	w.happen(Started{instance, w.pids})
}

// answerSteer answers the cutover that was ordered first. One that fails changes nothing.
func (w *world) answerSteer(why string) {
	to := w.cutovers[0]
	w.cutovers = w.cutovers[1:]
	if why == "" {
		w.steered = to
	}
	w.happen(Steered{to.Generation, why})
}

func (w *world) isForeign(instance int) bool {
	for pid, p := range w.processes {
		if p.instance == instance && w.foreign[pid] {
			return true
		}
	}
	return false
}

// move is what an app says at its NOTIFY_SOCKET, and a server that grace has not started has none.
func (w *world) move(instance int) {
	if w.isForeign(instance) {
		return
	}
	w.pids++
	w.processes[w.pids] = &process{pid: w.pids, instance: instance}
	w.happen(Moved{Instance: instance, PID: w.pids})
}

func (w *world) end(p *process, exit Exit) {
	p.ended = true
	w.happen(Exited{p.instance, p.pid, exit})
}

func (w *world) expire(number int) {
	t := w.armed[number]
	delete(w.armed, number)
	w.happen(TimerExpired{t})
}

func (w *world) readiness(instance int, said bool) {
	if w.hasProcess(instance) {
		if said {
			w.happen(Notified{instance})
		}
		w.happen(Readied{instance})
	}
}

// wanted picks the n-th key, going round.
func pick[V any](set map[int]V, n int) (int, bool) {
	if len(set) == 0 {
		return 0, false
	}
	keys := slices.Sorted(maps.Keys(set))
	return keys[n%len(keys)], true
}

var exits = []Exit{{}, {Code: 1}, {Signal: syscall.SIGTERM}, {Signal: syscall.SIGKILL}, {Code: 3}, {Unknown: true}}

// chance makes one thing happen that is possible now.
func (w *world) chance(what, which byte) {
	n := int(which)
	switch what % 28 {
	case 25:
		w.happen(ScaleRequested{Request: w.ask(), Instances: n % 6, By: n%3 - 1})
	case 26:
		if i, ok := pick(w.instances, n); ok {
			w.happen(Unfit{Instance: i, Why: "too large", Hangs: n%2 == 0})
		}
	case 24:
		w.chancePromotion(n)
	case 23:
		w.kill()
	case 0:
		w.chanceUpgrade(n)
	case 1, 2:
		if g, ok := pick(w.preparing, n); ok {
			w.answerPrepare(g, what%20 == 1 || n%4 > 0)
		}
	case 3, 4:
		if i, ok := pick(w.starting, n); ok {
			w.answerStart(i, what%20 == 3 || n%4 > 0)
		}
	case 5, 6:
		if i, ok := pick(w.instances, n); ok {
			w.readiness(i, n%8 == 7)
		}
	case 7, 8:
		w.chanceProcess(n)
	case 9, 10:
		if number, ok := pick(w.armed, n); ok {
			w.expire(number)
		}
	case 11:
		if len(w.stale) > 0 {
			w.happen(TimerExpired{w.stale[n%len(w.stale)]})
		}
	case 12:
		w.chanceNotice(n)
	case 13:
		if n%16 == 0 {
			w.happen(FilesChanged{"main.go"})
		} else if n%2 == 0 {
			w.happen(SignalReceived{Signal: syscall.SIGUSR1})
		} else {
			w.happen(SignalReceived{Signal: syscall.SIGUSR1, Request: w.ask()})
		}
	case 14:
		if n%8 == 0 {
			w.happen(StopRequested{w.ask()})
		}
	case 17:
		w.chanceReexec(n)
	case 18:
		w.chanceTrouble(n)
	case 16:
		if g, ok := pick(w.observed, n/2); ok && len(w.cutovers) == 0 { // looks begin after the cutovers
			w.chanceLook(g, n%2 == 0)
		}
	case 20:
		if g, ok := pick(w.departing, n); ok {
			w.chanceDeparture(g, n)
		}
	case 21:
		if g, ok := pick(w.holding, n); ok {
			w.held(g)
		}
	case 27:
		if g, ok := pick(w.turning, n); ok {
			w.turnedAway(g)
		}
	case 22:
		if g, ok := pick(w.keeping, n); ok {
			w.kept(g)
		}
	case 19:
		if len(w.cutovers) > 0 {
			w.answerSteer([]string{"", "no memory"}[n%8/7])
		}
	case 15:
		if n%32 == 0 {
			w.happen(KillRequested{w.ask()})
		}
	}
}

func (w *world) chanceLook(generation int, quiet bool) {
	if quiet {
		w.quiet(generation)
		return
	}
	w.happen(Awaited{generation})
}

// quiet has nothing go on in the processes that are looked at.
func (w *world) quiet(generation int) {
	delete(w.observed, generation)
	w.happen(Quieted{generation, w.lookedAt[generation]})
}

func (w *world) chanceDeparture(generation, n int) {
	if n%2 == 0 {
		w.happen(Announced{Generation: generation, Clients: n})
		return
	}
	w.depart(generation)
}

func (w *world) depart(generation int) {
	delete(w.departing, generation)
	w.happen(Departed{generation})
}

func (w *world) held(generation int) {
	delete(w.holding, generation)
	w.happen(Held{generation})
}

func (w *world) turnedAway(generation int) {
	delete(w.turning, generation)
	w.happen(TurnedAway{generation})
}

func (w *world) kept(generation int) {
	delete(w.keeping, generation)
	w.happen(Kept{generation, ConnectionEnds{Left: 1}})
}

func (w *world) chanceReexec(n int) {
	switch {
	case w.leaving && (n%2 == 0 || !w.m.Calm()):
		w.leaving = false
		w.happen(ReexecDelayed{})
	case w.leaving:
		w.leaving = false
		w.happen(ReexecFailed{"it did not"})
	case n%4 == 3:
		w.happen(ReexecRequested{w.ask()})
	case w.m.reexec == nil:
		w.travel()
	}
}

func (w *world) chancePromotion(n int) {
	g := w.m.sharing()
	switch {
	case n%4 == 3 && g != nil && w.examined[g.Number]:
		w.happen(Rejected{g.Number, "check failed"})
	default:
		w.happen(PromoteRequested{Request: w.ask(), Fully: n%4 == 2})
	}
}

func (w *world) chanceUpgrade(n int) {
	switch n % 5 {
	case 4:
		w.happen(UpgradeRequested{Request: w.ask(), Canary: []CanaryStep{{100, 0}, {500, time.Minute}}})
	case 0:
		w.happen(UpgradeRequested{})
	case 1:
		w.happen(UpgradeRequested{Request: w.ask()})
	case 2:
		w.happen(UpgradeRequested{Request: w.ask(), Command: []string{"app", fmt.Sprint(n)}})
	case 3:
		w.happen(UpgradeRequested{Request: w.ask(), Rollback: true})
	}
}

func (w *world) chanceProcess(n int) {
	pid, ok := pick(w.processes, n)
	if !ok {
		return
	}
	p := w.processes[pid]
	if p.ended {
		w.happen(Emptied{p.instance, p.pid})
		return
	}
	w.end(p, exits[n%len(exits)])
}

func (w *world) chanceNotice(n int) {
	i, ok := pick(w.instances, n/12)
	if !ok || !w.hasProcess(i) || w.isForeign(i) { // which has no NOTIFY_SOCKET
		return
	}
	switch n % 12 {
	case 11:
		w.happen(Left{i, []Leftover{{PID: n, Command: "sleep", Told: n%2 == 0}}})
	case 10:
		w.happen(Obstructed{i, "it is stopped"})
	case 0:
		w.extended[i] = true
		w.happen(Extended{i, time.Duration(n) * time.Second})
	case 1:
		w.happen(Pinged{i})
	case 2:
		w.move(i)
	case 3:
		w.happen(Touched{i})
		w.happen(Opened{i})
	case 4:
		w.happen(Unreadied{i, "not yet"})
	case 5:
		w.happen(Described{i, "hello"})
	case 6:
		w.happen(FellBack{i, "cannot look"})
	case 7:
		w.happen(Counted{Generation: w.m.generation, InFlight: n})
	case 8:
		w.happen(Withdrawn{i})
	case 9:
		w.happen(Tallied{i, n})
		if n%3 == 0 {
			w.happen(Exempted{i})
		}
	}
}

// chanceTrouble is what befalls all of grace.
func (w *world) chanceTrouble(n int) {
	switch n % 16 {
	case 0:
		w.happen(Uncaptured{"not permitted"})
	case 1:
		w.happen(Revived{Listener: "web"})
	case 2:
		w.happen(Revived{Listener: "web", Replaced: true})
	case 3:
		w.happen(Revived{Listener: "web", Why: "it is gone"})
	case 4:
		w.happen(Closed{Generation: w.m.generation, Address: "127.0.0.1:80"})
	case 5:
		w.happen(Noticed{"trouble", "some"})
	case 6:
		w.happen(StopRequested{})
	case 7:
		if n%32 == 7 {
			w.happen(KillRequested{})
		}
	case 8:
		if w.m.policy.Steered {
			w.find()
		}
	case 9:
		w.happen(ReleaseRequested{w.ask()})
	}
}

// unwind is invariant 5: told to stop, a world in which processes ignore all but
// KILL comes to its end by deadlines alone.
func (w *world) unwind() {
	w.t.Helper()
	if !w.finished {
		w.happen(StopRequested{})
	}
	for range 1000 {
		if w.finished {
			return
		}
		w.unwindStep()
	}
	w.t.Fatalf("wedged: %s", w)
}

func (w *world) unwindStep() {
	if len(w.cutovers) > 0 {
		w.answerSteer("")
		return
	}
	if g, ok := pick(w.preparing, 0); ok {
		w.answerPrepare(g, true)
		return
	}
	if i, ok := pick(w.starting, 0); ok {
		w.answerStart(i, true)
		return
	}
	for _, pid := range slices.Sorted(maps.Keys(w.processes)) {
		p := w.processes[pid]
		if p.ended {
			w.happen(Emptied{p.instance, p.pid})
			return
		}
		if p.killed {
			w.end(p, Exit{Signal: syscall.SIGKILL})
			return
		}
	}
	if g, ok := pick(w.keeping, 0); ok {
		w.kept(g)
		return
	}
	if number, ok := pick(w.armed, 0); ok {
		w.expire(number)
	}
}

func (w *world) String() string {
	return fmt.Sprintf("mode %d, generations %d, processes %v, starting %v, preparing %v, timers %v",
		w.m.mode, len(w.m.generations), w.processes, w.starting, w.preparing, w.armed)
}

func fuzzPolicy(bits uint16) Policy {
	p := Policy{
		Instances: 1 + int(bits&1), MaxDraining: 1 + int(bits>>1&1), Restart: RestartOnFailure,
		StopSignal: syscall.SIGTERM, ReadyTimeout: time.Minute, DrainTimeout: 30 * time.Second,
		Held: bits>>2&1 == 1, Shared: bits>>2&1 == 1,
	}
	if bits>>3&1 == 1 {
		p.Restart = RestartAlways
	}
	if bits>>4&1 == 1 {
		p.Restart = RestartNever
	}
	if bits>>5&1 == 1 {
		p.DrainDelay = 5 * time.Second
	}
	if bits>>6&1 == 1 {
		p.Watchdog = 10 * time.Second
	}
	if bits>>7&1 == 1 {
		p.Steered, p.Settle = true, 2*time.Second
	}
	if bits>>8&1 == 1 {
		p.Farewell = time.Second
	}
	if bits>>15&1 == 1 {
		p.RestartLimit = RestartLimit{Restarts: 2, Within: time.Minute}
	}
	p.MaxSurge = []Surge{{}, {Limited: true}, {Limited: true, Count: 1}, {Limited: true, Percent: 50}}[bits>>11&3]
	if bits>>13&1 == 1 {
		p.MaxAge = time.Hour
	}
	p.Instances += 2 * int(bits>>14&1)
	if bits>>9&1 == 1 {
		p.KeepWarm = time.Hour
	}
	if bits>>10&1 == 1 {
		p.Canary, p.Examined = []CanaryStep{{500, time.Minute}, {2500, time.Minute}}, true
	}
	return p
}

// FuzzMachine lets anything happen in any order.
func FuzzMachine(f *testing.F) {
	// A whole upgrade, with readiness said once more by the old generation.
	f.Add(uint16(0), []byte{1, 0, 3, 0, 5, 0, 0, 0, 1, 0, 3, 0, 5, 1, 5, 0, 7, 0, 7, 0})
	// Grace is killed while the clients of a generation leave that has emptied before.
	f.Add(uint16(386), []byte("y0\x030\x050C000y0&000C000X0\x170"))
	// A crash and a restart that gets ready.
	f.Add(uint16(0), []byte{1, 0, 3, 0, 5, 0, 7, 1, 7, 0, 9, 0, 3, 0, 5, 0})
	// Crashes until no more restart is allowed, one instance and two.
	f.Add(uint16(0x8000), []byte{1, 0, 3, 0, 5, 0, 7, 1, 7, 0, 9, 0, 3, 0, 5, 0, 7, 1, 7, 0, 9, 0, 3, 0, 5, 0, 7, 1, 7, 0})
	f.Add(uint16(0x8001), []byte{1, 0, 3, 0, 3, 0, 5, 0, 5, 1, 7, 1, 7, 0, 9, 0, 3, 0, 5, 2, 7, 3, 7, 2, 9, 0, 3, 0, 5, 2, 7, 1, 7, 0})
	// A crash, its backoff, and an upgrade meanwhile.
	f.Add(uint16(0), []byte{1, 0, 3, 0, 5, 0, 7, 1, 0, 0, 7, 0, 1, 0, 9, 0, 3, 0, 3, 0, 5, 1})
	// A steered upgrade that is undone, and one that ends when its connections are idle.
	f.Add(uint16(0x80), []byte{1, 0, 3, 0, 5, 0, 19, 0, 0, 0, 1, 0, 3, 0, 5, 1, 19, 0, 7, 1, 7, 1})
	f.Add(uint16(0x80), []byte{1, 0, 3, 0, 5, 0, 19, 0, 0, 0, 1, 0, 3, 0, 5, 1, 19, 0, 9, 2, 9, 2, 16, 0, 7, 0, 7, 0})
	// The machine travels to another grace process while an old generation empties.
	f.Add(uint16(0x80), []byte{1, 0, 3, 0, 5, 0, 19, 0, 0, 0, 1, 0, 3, 0, 5, 1, 19, 0, 9, 2, 17, 0, 16, 0, 7, 0, 7, 0, 17, 0})
	// A stop, and a second one while it empties; one that ends well.
	f.Add(uint16(0x80), []byte{1, 0, 3, 0, 5, 0, 19, 0, 14, 0, 18, 6})
	f.Add(uint16(0x80), []byte{1, 0, 3, 0, 5, 0, 19, 0, 0, 0, 1, 0, 3, 0, 5, 1, 14, 0, 19, 0, 16, 0, 16, 0, 7, 0, 7, 0, 7, 0})
	// A crash while a candidate starts: as somebody waits, it is started again, crashes once more, and answers in the end.
	f.Add(uint16(0x80), []byte{1, 0, 3, 0, 5, 0, 19, 0, 0, 0, 1, 0, 3, 0, 7, 4, 7, 0, 5, 0, 19, 0, 16, 1, 3, 0, 16, 0, 7, 1, 7, 1, 9, 3, 16, 1, 3, 0, 5, 1, 16, 0, 16, 0, 7, 1, 7, 1})
	// One of two instances crashes before connections go to its generation, and after that; a cutover that fails.
	f.Add(uint16(0x81), []byte{1, 0, 3, 0, 3, 0, 5, 0, 5, 1, 19, 0, 0, 0, 1, 0, 3, 0, 3, 0, 5, 2, 5, 3, 7, 2, 19, 0, 19, 0, 16, 0})
	f.Add(uint16(0x81), []byte{1, 0, 3, 0, 3, 0, 5, 0, 5, 1, 19, 0, 0, 0, 1, 0, 3, 0, 3, 0, 5, 2, 5, 3, 19, 0, 7, 2, 16, 0, 19, 0, 16, 0})
	f.Add(uint16(0x80), []byte{1, 0, 3, 0, 5, 0, 19, 0, 0, 1, 1, 0, 3, 0, 5, 1, 19, 7, 19, 0, 16, 0, 7, 1})
	f.Add(uint16(0xff), []byte{1, 0, 3, 0, 3, 0, 5, 0, 5, 1, 7, 0, 9, 0, 0, 0, 14, 0})
	// The clients of a replaced generation leave before it is told to stop, held and steered; and are told by another grace again.
	f.Add(uint16(0x104), []byte{1, 0, 3, 0, 5, 0, 0, 0, 1, 0, 3, 0, 5, 1, 20, 0, 20, 1, 21, 0, 7, 0, 7, 0, 22, 0})
	f.Add(uint16(0x180), []byte{1, 0, 3, 0, 5, 0, 19, 0, 0, 0, 1, 0, 3, 0, 5, 1, 19, 0, 20, 0, 20, 1, 9, 2, 16, 0, 21, 0, 7, 0, 7, 0, 22, 0, 14, 0})
	f.Add(uint16(0x180), []byte{1, 0, 3, 0, 5, 0, 19, 0, 0, 0, 1, 0, 3, 0, 5, 1, 19, 0, 9, 2, 17, 0, 16, 0, 21, 0, 7, 0, 7, 0, 17, 0})
	// A server that grace has not started is replaced, the way back, and one whose successor fails.
	f.Add(uint16(0x80), []byte{1, 0, 3, 0, 18, 8, 5, 0, 19, 0, 9, 2, 16, 0, 7, 0, 7, 0})
	f.Add(uint16(0x80), []byte{1, 0, 3, 0, 18, 8, 5, 0, 19, 0, 7, 1, 7, 1, 19, 0})
	f.Add(uint16(0x180), []byte{1, 0, 3, 0, 18, 8, 7, 1, 7, 1})
	// A canary whose share grows, which is promoted, fails, is rejected, is asked back; and a warm way back.
	for _, last := range [][]byte{{24, 0, 19, 0, 24, 2, 19, 0}, {7, 1, 7, 1, 19, 0}, {24, 3, 19, 0}, {0, 3, 19, 0}, {17, 0, 24, 0}, {23, 0, 24, 1}} {
		f.Add(uint16(0x480), append([]byte{1, 0, 3, 0, 5, 0, 19, 0, 0, 0, 1, 0, 3, 0, 5, 1, 19, 0}, last...))
	}
	f.Add(uint16(0x280), []byte{1, 0, 3, 0, 5, 0, 19, 0, 0, 0, 1, 0, 3, 0, 5, 1, 19, 0, 9, 2, 0, 3, 19, 0, 16, 0, 7, 1, 7, 1})
	// Instances come one after another: two of two, held and steered; one that fails; the old one first.
	for _, policy := range []uint16{0x1001, 0x1081, 0x801, 0x881, 0x800, 0x880, 0x980} {
		f.Add(policy, []byte{1, 0, 3, 0, 3, 0, 5, 0, 5, 1, 19, 0, 0, 0, 1, 0, 3, 0, 5, 2, 19, 0, 16, 0, 7, 0, 7, 0, 3, 0, 5, 3, 19, 0, 7, 1, 7, 1})
		f.Add(policy, []byte{1, 0, 3, 0, 3, 0, 5, 0, 5, 1, 19, 0, 0, 0, 1, 0, 3, 0, 5, 2, 19, 0, 16, 0, 7, 0, 7, 0, 3, 0, 7, 2, 7, 2, 5, 3, 19, 0, 3, 0, 5, 1})
		f.Add(policy, []byte{1, 0, 3, 0, 3, 0, 5, 0, 5, 1, 19, 0, 0, 0, 1, 0, 16, 0, 7, 0, 7, 0, 3, 0, 7, 1, 7, 1, 3, 0, 5, 0, 23, 0})
	}
	// More instances and fewer; one that is replaced.
	f.Add(uint16(0), []byte{1, 0, 3, 0, 5, 0, 25, 2, 3, 0, 5, 1, 25, 1, 7, 1, 7, 1, 26, 0, 3, 0, 5, 2, 7, 0, 7, 0})
	f.Add(uint16(0x80), []byte{1, 0, 3, 0, 5, 0, 19, 0, 25, 2, 3, 0, 5, 1, 25, 1, 16, 0, 7, 1, 7, 1, 26, 0, 3, 0, 5, 2, 16, 0, 7, 0, 7, 0})
	// Grace is killed at every point of an upgrade, held and steered.
	for _, script := range [][]byte{{1, 0, 3, 0, 5, 0, 0, 0, 1, 0, 3, 0, 5, 1, 7, 0, 7, 0}, {1, 0, 3, 0, 5, 0, 19, 0, 0, 0, 1, 0, 3, 0, 5, 1, 19, 0, 9, 2, 16, 0, 7, 0, 7, 0}} {
		for n := 0; n <= len(script); n += 2 {
			f.Add(uint16(0), slices.Insert(slices.Clone(script), n, 23, 0))
			f.Add(uint16(0x80), slices.Insert(slices.Clone(script), n, 23, 0))
			f.Add(uint16(0x184), slices.Insert(slices.Clone(script), n, 23, 0))
		}
	}
	f.Fuzz(func(t *testing.T, policy uint16, script []byte) {
		w := newWorld(t, fuzzPolicy(policy))
		w.slow = true
		for i := 0; i+1 < len(script) && !w.finished; i += 2 {
			w.chance(script[i], script[i+1])
		}
		w.unwind()
	})
}
