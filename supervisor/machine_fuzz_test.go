package supervisor

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
	m         *machine
	at        time.Time
	preparing map[int]prepare
	starting  map[int]bool
	processes map[int]*process // by pid
	instances map[int]bool     // started and not released
	armed     map[int]timer
	stale     []timer
	told      map[int]bool // generations that were told to drain
	asked     map[int]bool // requests that have no answer
	leaving   bool         // a handover has no answer
	requests  int
	observed  map[int]bool  // generations that are observed
	lookedAt  map[int][]int // their processes that are
	retired   map[int]bool  // generations
	prepared  map[int]bool  // generations whose executables are kept
	patience  map[int]time.Duration
	steered   int  // the generation that gets new connections
	closed    bool // nobody gets any more
	pids      int
	seen      []action
	finished  bool
	status    int
}

type process struct {
	pid, instance int
	ended, killed bool
}

func newWorld(t *testing.T, p Policy) *world {
	w := &world{
		t: t, m: newMachine(p), at: time.Unix(1e9, 0),
		preparing: map[int]prepare{}, retired: map[int]bool{}, starting: map[int]bool{}, processes: map[int]*process{},
		instances: map[int]bool{}, armed: map[int]timer{}, told: map[int]bool{}, asked: map[int]bool{},
		prepared: map[int]bool{}, observed: map[int]bool{}, lookedAt: map[int][]int{}, patience: map[int]time.Duration{},
	}
	w.takeAll(w.m.begin(w.at))
	return w
}

func (w *world) happen(ev event) {
	w.t.Helper()
	serving, answering := w.serving(), w.answering()
	w.at = w.at.Add(time.Millisecond)
	actions := w.m.step(w.at, ev)
	w.checkServing(serving, actions)
	w.checkStop(serving, actions)
	w.checkStarts(ev, actions)
	w.checkAnswering(answering, ev)
	w.takeAll(actions)
	w.checkGenerations()
}

// serving is the instances that are ready in the current generation.
func (w *world) serving() map[int]bool {
	ready := map[int]bool{}
	if w.m.current == nil || w.m.current.stage != StageCurrent {
		return ready
	}
	for _, i := range w.m.current.instances {
		if i.phase == Ready {
			ready[i.id] = true
		}
	}
	return ready
}

// checkServing is invariant 2: who serves is told to stop only for a successor,
// for the end of all, or because the watchdog found it dead.
func (w *world) checkServing(serving map[int]bool, actions []action) {
	w.t.Helper()
	for _, a := range actions {
		stop, ok := a.(tell)
		if !ok || !serving[stop.instance] || stop.signal != w.m.policy.StopSignal {
			continue
		}
		i := w.m.instances[stop.instance]
		if w.m.mode != stopping && (w.m.current == nil || w.m.current == i.generation) {
			w.t.Fatalf("instance %d serves and was told to stop without a successor", stop.instance)
		}
	}
}

// checkStop is invariant 10: who serves on sockets of his own is not told to stop in the moment
// in which grace is.
func (w *world) checkStop(serving map[int]bool, actions []action) {
	w.t.Helper()
	for _, a := range actions {
		stop, ok := a.(tell)
		if ok && serving[stop.instance] && slices.Contains(actions, action(turnAway{})) && !w.m.policy.Shared {
			w.t.Fatalf("instance %d was told to stop with all that waits for it", stop.instance)
		}
	}
}

// checkStarts is half of invariant 11: what was replaced is started again only for who waits.
func (w *world) checkStarts(ev event, actions []action) {
	w.t.Helper()
	for _, a := range actions {
		again, ok := a.(start)
		if !ok || !w.m.find(again.generation).leaving() {
			continue
		}
		if ev != (awaited{again.generation}) {
			w.t.Fatalf("instance %d of generation %d, which was replaced, is started for %T", again.instance, again.generation, ev)
		}
	}
}

// answering are the generations that were replaced and accept what waits, or would.
func (w *world) answering() map[int]bool {
	found := map[int]bool{}
	for _, g := range w.m.generations {
		if g.stage == StageSettling || g.stage == StageEmptying {
			found[g.number] = w.m.answers(g)
		}
	}
	return found
}

// checkAnswering is the other half: it is not told to stop as long as somebody may wait, unless
// its time is over or nobody is to be started again.
func (w *world) checkAnswering(answering map[int]bool, ev event) {
	w.t.Helper()
	for generation, answers := range answering {
		if answers && w.draining(generation) && !w.endsAnswering(generation, ev) {
			w.t.Fatalf("generation %d is told to stop for %T%+v", generation, ev, ev)
		}
	}
}

func (w *world) endsAnswering(generation int, ev event) bool {
	if w.m.mode >= stopping {
		return true
	}
	switch ev := ev.(type) {
	case quieted:
		return ev.generation == generation && w.allLookedAt(ev)
	case timerExpired:
		return ev.timer.relief == generation
	case exited: // one that is killed for a fault is started again whatever its status
		return !w.m.policy.Restart.wants(ev.exit.Failed())
	case startFailed:
		return !w.m.policy.Restart.wants(true)
	}
	return false
}

func (w *world) allLookedAt(ev quieted) bool {
	g := w.m.find(ev.generation)
	return g == nil || !slices.ContainsFunc(g.pids(), func(pid int) bool { return !slices.Contains(ev.pids, pid) })
}

func (w *world) draining(generation int) bool {
	g := w.m.find(generation)
	return g == nil || g.stage == StageDraining
}

func (w *world) checkGenerations() {
	w.t.Helper()
	candidates := 0
	for _, g := range w.m.generations {
		switch g.stage {
		case StagePreparing, StageCandidate:
			candidates++
			if w.told[g.number] {
				w.t.Fatalf("generation %d came back from its end", g.number)
			}
		case StageDraining:
			w.told[g.number] = true
		case StageSettling, StageEmptying:
			if w.steered == 0 || w.told[g.number] {
				w.t.Fatalf("generation %d is %s", g.number, g.stage)
			}
		case StageCurrent:
			if w.told[g.number] {
				w.t.Fatalf("generation %d was told to stop and is promoted", g.number)
			}
		case StageEnded:
			w.t.Fatalf("generation %d has ended and is kept", g.number)
		}
	}
	if w.m.current != nil && w.m.current.stage != StageCurrent {
		w.t.Fatalf("generation %d is current and %s", w.m.current.number, w.m.current.stage)
	}
	w.checkSteering()
	w.checkPlaces()
	if candidates > 1 {
		w.t.Fatalf("%d candidates at once", candidates)
	}
}

// checkPlaces: an instance that has ended is started again once.
func (w *world) checkPlaces() {
	w.t.Helper()
	type place struct{ generation, slot int }
	taken := map[place]int{}
	for _, i := range w.m.instances {
		at := place{i.generation.number, i.slot}
		if other := taken[at]; other != 0 && !i.ended {
			w.t.Fatalf("instances %d and %d have the same place", other, i.id)
		}
		if !i.ended {
			taken[at] = i.id
		}
	}
}

// checkSteering: connections go to the generation that serves, and one that is
// told to stop is not it.
func (w *world) checkSteering() {
	w.t.Helper()
	if w.m.policy.Steered && w.m.current != nil && w.steered != w.m.current.number {
		w.t.Fatalf("generation %d is current, and connections go to %d", w.m.current.number, w.steered)
	}
}

func (w *world) takeAll(actions []action) {
	w.t.Helper()
	for _, a := range actions {
		if w.finished {
			w.t.Fatalf("%T after the end", a)
		}
		w.take(a)
		w.seen = append(w.seen, a)
	}
}

func (w *world) take(a action) {
	w.t.Helper()
	switch a := a.(type) {
	case prepare:
		w.need(a.again == nil || w.prepared[a.again.Generation], a)
		w.preparing[a.generation] = a
	case abandon:
		w.need(w.preparing[a.generation].generation != 0, a)
	case start:
		w.need(!w.instances[a.instance], a)
		w.starting[a.instance], w.instances[a.instance] = true, true
	case dismiss:
		w.need(w.instances[a.instance], a)
	case tell:
		w.need(w.hasProcess(a.instance), a)
	case tellGroup:
		w.need(w.hasProcess(a.instance) && w.m.policy.StopGroup, a)
	case tellRest:
		w.need(w.hasProcess(a.instance) && w.m.instances[a.instance].ended, a)
	case kill:
		w.need(w.hasProcess(a.instance), a)
		w.markKilled(a.instance)
	case reap:
		p := w.processes[a.pid]
		w.need(p != nil && p.ended && p.instance == a.instance, a)
		delete(w.processes, a.pid)
	case release:
		w.need(!w.hasProcess(a.instance) && !w.starting[a.instance], a)
		delete(w.instances, a.instance)
	case steer:
		g := w.m.find(a.generation)
		w.need(g != nil && g.stage == StageCurrent && w.m.policy.Steered && !w.closed, a)
		w.steered = a.generation
	case turnAway:
		w.need(!w.closed && w.m.mode >= stopping && w.m.policy.Steered, a)
		w.closed = true
	case letGo:
		w.need(w.m.mode >= stopping && w.draining(a.generation), a)
	case observe:
		w.need(!w.observed[a.generation], a)
		w.observed[a.generation], w.lookedAt[a.generation], w.patience[a.generation] = true, a.pids, a.idle
	case retire:
		w.need(!w.retired[a.generation], a)
		w.retired[a.generation] = true
		delete(w.observed, a.generation)
	case discard:
		w.need(w.retired[a.generation], a)
		delete(w.prepared, a.generation)
	case count, report:
	case arm:
		w.need(a.after > 0 && w.armed[a.timer.number] == timer{}, a)
		w.armed[a.timer.number] = a.timer
	case disarm:
		w.stale = append(w.stale, a.timer)
		delete(w.armed, a.timer.number)
	case handOver:
		w.need(!w.leaving && w.m.calm(), a)
		w.leaving = true
	case answer:
		w.need(w.asked[a.request] && w.plausible(a.result), a)
		delete(w.asked, a.request)
	case finish:
		w.checkFinish()
		w.finished, w.status = true, a.status
	default:
		w.t.Fatalf("unknown action %T", a)
	}
}

func (w *world) need(ok bool, a action) {
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

// plausible: who is told that a generation serves can rely on it.
func (w *world) plausible(r result) bool {
	if r.outcome != OutcomeUpgraded {
		return true
	}
	serves := w.m.current != nil && r.generation == w.m.current.number || r.generation == w.steered // until the next action
	return w.m.mode == stopping || serves && r.serving == r.generation
}

// ask gives a request its number.
func (w *world) ask() int {
	w.requests++
	w.asked[w.requests] = true
	return w.requests
}

// found is what the fakes find.
func found(p prepare) recipe {
	if p.again != nil {
		return *p.again
	}
	return recipe{Command: p.command, Path: "/app", Executable: "/app", Dir: "/"}
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
		w.happen(prepared{generation, found(order)})
		return
	}
	w.happen(prepareFailed{generation, "check failed", 1})
}

func (w *world) answerStart(instance int, ok bool) {
	delete(w.starting, instance)
	if !ok {
		w.happen(startFailed{instance, Exit{Code: 1, NotRun: "no process is left", Shortage: true}})
		return
	}
	w.pids++
	w.processes[w.pids] = &process{pid: w.pids, instance: instance}
	w.happen(started{instance, w.pids})
}

func (w *world) move(instance int) {
	w.pids++
	w.processes[w.pids] = &process{pid: w.pids, instance: instance}
	w.happen(moved{instance: instance, pid: w.pids})
}

func (w *world) end(p *process, exit Exit) {
	p.ended = true
	w.happen(exited{p.instance, p.pid, exit})
}

func (w *world) expire(number int) {
	t := w.armed[number]
	delete(w.armed, number)
	w.happen(timerExpired{t})
}

func (w *world) readiness(instance int, said bool) {
	if w.hasProcess(instance) {
		if said {
			w.happen(notified{instance})
		}
		w.happen(readied{instance})
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
	switch what % 19 {
	case 0:
		w.chanceUpgrade(n)
	case 1, 2:
		if g, ok := pick(w.preparing, n); ok {
			w.answerPrepare(g, what%19 == 1 || n%4 > 0)
		}
	case 3, 4:
		if i, ok := pick(w.starting, n); ok {
			w.answerStart(i, what%19 == 3 || n%4 > 0)
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
			w.happen(timerExpired{w.stale[n%len(w.stale)]})
		}
	case 12:
		w.chanceNotice(n)
	case 13:
		w.happen(signalReceived{syscall.SIGUSR1})
	case 14:
		if n%8 == 0 {
			w.happen(stopRequested{w.ask()})
		}
	case 17:
		w.chanceReexec(n)
	case 18:
		w.chanceTrouble(n)
	case 16:
		if g, ok := pick(w.observed, n/2); ok {
			w.chanceLook(g, n%2 == 0)
		}
	case 15:
		if n%32 == 0 {
			w.happen(killRequested{w.ask()})
		}
	}
}

func (w *world) chanceLook(generation int, quiet bool) {
	if quiet {
		w.quiet(generation)
		return
	}
	w.happen(awaited{generation})
}

// quiet has nothing go on in the processes that are looked at.
func (w *world) quiet(generation int) {
	delete(w.observed, generation)
	w.happen(quieted{generation, w.lookedAt[generation]})
}

func (w *world) chanceReexec(n int) {
	switch {
	case w.leaving && (n%2 == 0 || !w.m.calm()):
		w.leaving = false
		w.happen(reexecDelayed{})
	case w.leaving:
		w.leaving = false
		w.happen(reexecFailed{"it did not"})
	case n%4 == 3:
		w.happen(reexecRequested{w.ask()})
	case w.m.relay == nil:
		w.travel()
	}
}

func (w *world) chanceUpgrade(n int) {
	switch n % 4 {
	case 0:
		w.happen(upgradeRequested{})
	case 1:
		w.happen(upgradeRequested{request: w.ask()})
	case 2:
		w.happen(upgradeRequested{request: w.ask(), command: []string{"app", fmt.Sprint(n)}})
	case 3:
		w.happen(upgradeRequested{request: w.ask(), rollback: true})
	}
}

func (w *world) chanceProcess(n int) {
	pid, ok := pick(w.processes, n)
	if !ok {
		return
	}
	p := w.processes[pid]
	if p.ended {
		w.happen(emptied{p.instance, p.pid})
		return
	}
	w.end(p, exits[n%len(exits)])
}

func (w *world) chanceNotice(n int) {
	i, ok := pick(w.instances, n/12)
	if !ok || !w.hasProcess(i) {
		return
	}
	switch n % 12 {
	case 11:
		w.happen(left{i, []remnant{{PID: n, Command: "sleep", Told: n%2 == 0}}})
	case 10:
		w.happen(obstructed{i, "it is stopped"})
	case 0:
		w.happen(extended{i, time.Duration(n) * time.Second})
	case 1:
		w.happen(pinged{i})
	case 2:
		w.move(i)
	case 3:
		w.happen(touched{i})
		w.happen(opened{i})
	case 4:
		w.happen(unreadied{i, "not yet"})
	case 5:
		w.happen(described{i, "hello"})
	case 6:
		w.happen(fellBack{i, "cannot look"})
	case 7:
		w.happen(counted{generation: w.m.generation, inFlight: n})
	case 8:
		w.happen(withdrawn{i})
	case 9:
		w.happen(tallied{i, n})
	}
}

// chanceTrouble is what befalls all of grace.
func (w *world) chanceTrouble(n int) {
	switch n % 16 {
	case 0:
		w.happen(uncaptured{"not permitted"})
	case 1:
		w.happen(revived{listener: "web"})
	case 2:
		w.happen(revived{listener: "web", replaced: true})
	case 3:
		w.happen(revived{listener: "web", why: "it is gone"})
	case 4:
		w.happen(closed{generation: w.m.generation, address: "127.0.0.1:80"})
	case 5:
		w.happen(noticed{"trouble", "some"})
	case 6:
		w.happen(stopRequested{})
	case 7:
		if n%32 == 7 {
			w.happen(killRequested{})
		}
	}
}

// unwind is invariant 5: told to stop, a world in which processes ignore all but
// KILL comes to its end by deadlines alone.
func (w *world) unwind() {
	w.t.Helper()
	if !w.finished {
		w.happen(stopRequested{})
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
			w.happen(emptied{p.instance, p.pid})
			return
		}
		if p.killed {
			w.end(p, Exit{Signal: syscall.SIGKILL})
			return
		}
	}
	if number, ok := pick(w.armed, 0); ok {
		w.expire(number)
	}
}

func (w *world) String() string {
	return fmt.Sprintf("mode %d, generations %d, processes %v, starting %v, preparing %v, timers %v",
		w.m.mode, len(w.m.generations), w.processes, w.starting, w.preparing, w.armed)
}

func fuzzPolicy(bits byte) Policy {
	p := Policy{
		Instances: 1 + int(bits&1), MaxDraining: 1 + int(bits>>1&1), Restart: RestartOnFailure,
		StopSignal: syscall.SIGTERM, ReadyTimeout: time.Minute, DrainTimeout: 30 * time.Second,
		Held: bits>>2&1 == 1,
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
		p.Steered, p.Settle, p.Shared = true, 2*time.Second, p.Held
	}
	return p
}

// FuzzMachine lets anything happen in any order.
func FuzzMachine(f *testing.F) {
	// A whole upgrade, with readiness said once more by the old generation.
	f.Add(byte(0), []byte{1, 0, 3, 0, 5, 0, 0, 0, 1, 0, 3, 0, 5, 1, 5, 0, 7, 0, 7, 0})
	// A crash and a restart that gets ready.
	f.Add(byte(0), []byte{1, 0, 3, 0, 5, 0, 7, 1, 7, 0, 9, 0, 3, 0, 5, 0})
	// A crash, its backoff, and an upgrade meanwhile.
	f.Add(byte(0), []byte{1, 0, 3, 0, 5, 0, 7, 1, 0, 0, 7, 0, 1, 0, 9, 0, 3, 0, 3, 0, 5, 1})
	// A steered upgrade that is undone, and one that ends when its connections are idle.
	f.Add(byte(0x80), []byte{1, 0, 3, 0, 5, 0, 0, 0, 1, 0, 3, 0, 5, 1, 7, 1, 7, 1})
	f.Add(byte(0x80), []byte{1, 0, 3, 0, 5, 0, 0, 0, 1, 0, 3, 0, 5, 1, 9, 2, 9, 2, 16, 0, 7, 0, 7, 0})
	// The machine travels to another grace while an old generation empties.
	f.Add(byte(0x80), []byte{1, 0, 3, 0, 5, 0, 0, 0, 1, 0, 3, 0, 5, 1, 9, 2, 17, 0, 16, 0, 7, 0, 7, 0, 17, 0})
	// A stop, and a second one while it empties; one that ends well.
	f.Add(byte(0x80), []byte{1, 0, 3, 0, 5, 0, 14, 0, 18, 6})
	f.Add(byte(0x80), []byte{1, 0, 3, 0, 5, 0, 0, 0, 1, 0, 3, 0, 5, 1, 14, 0, 16, 0, 16, 0, 7, 0, 7, 0, 7, 0})
	// A crash while a candidate starts: as somebody waits, it is started again, crashes once more, and answers in the end.
	f.Add(byte(0x80), []byte{1, 0, 3, 0, 5, 0, 0, 0, 1, 0, 3, 0, 7, 4, 7, 0, 5, 0, 16, 1, 3, 0, 16, 0, 7, 1, 7, 1, 9, 3, 16, 1, 3, 0, 5, 1, 16, 0, 16, 0, 7, 1, 7, 1})
	f.Add(byte(0xff), []byte{1, 0, 3, 0, 3, 0, 5, 0, 5, 1, 7, 0, 9, 0, 0, 0, 14, 0})
	f.Fuzz(func(t *testing.T, policy byte, script []byte) {
		w := newWorld(t, fuzzPolicy(policy))
		for i := 0; i+1 < len(script) && !w.finished; i += 2 {
			w.chance(script[i], script[i+1])
		}
		w.unwind()
	})
}
