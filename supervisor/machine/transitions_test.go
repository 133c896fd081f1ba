package machine

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the generated documents")

const transitionsFile = "../../docs/transitions.md"

const transitionsHead = `# Transitions

What the machine (` + "`supervisor/machine`" + `) does for each event in each phase of an instance. ` + "`go test ./supervisor/machine -run Transitions -update`" + `
generates this page by running the machine. Log lines, timers and cleaning up are left out. "–" means that
nothing happens. A phase after an arrow is the next phase of the instance; *exited* means that the instance has ended.

`

// situation is an instance in one phase, in a generation at one stage.
type situation struct {
	stage  Stage
	phase  Phase
	remark string
	reach  func(t *testing.T) (*world, *instance)
}

var situations = []situation{
	{StageCandidate, PhaseStarting, "not forked yet", func(t *testing.T) (*world, *instance) {
		w := upgrading(t)
		w.answerPrepare(2, true)
		return w, w.m.instances[2]
	}},
	{StageCandidate, PhaseStarting, "", candidateStarted},
	{StageSharing, PhaseReady, "of its own sockets, with a share of the new connections", func(t *testing.T) (*world, *instance) {
		w, _ := sharing(t, canaryPolicy(CanaryStep{500, time.Minute}, CanaryStep{2500, time.Minute}))
		return w, w.m.instances[2]
	}},
	{StageCurrent, PhaseReady, "of its own sockets, beside one that has a share", func(t *testing.T) (*world, *instance) {
		w, _ := sharing(t, canaryPolicy(CanaryStep{500, time.Minute}))
		return w, w.m.instances[1]
	}},
	{StageSharing, PhaseReady, "of its own sockets, instances come one by one", func(t *testing.T) (*world, *instance) {
		w, _ := rolled(t, rollingPolicy(1, true), 2)
		w.startNext(2)
		return w, w.m.find(2).instances[0]
	}},
	{StageSharing, PhaseStarting, "of its own sockets, beside others that serve", func(t *testing.T) (*world, *instance) {
		w, _ := rolled(t, rollingPolicy(1, true), 2)
		w.startNext(2)
		return w, w.m.find(2).instances[2]
	}},
	{StageCurrent, PhaseReady, "of its own sockets, the new generation's instances come one by one", func(t *testing.T) (*world, *instance) {
		w, _ := rolled(t, rollingPolicy(1, true), 2)
		w.startNext(2)
		i := w.m.find(1).instances
		return w, i[slices.IndexFunc(i, func(i *instance) bool { return i.Phase == PhaseReady })]
	}},
	{StageEmptying, PhaseReady, "of its own sockets, to end before its successor starts", func(t *testing.T) (*world, *instance) {
		p := rollingPolicy(0, true)
		p.Instances = 1
		w := servingWith(t, p)
		w.happen(UpgradeRequested{})
		w.answerPrepare(2, true)
		return w, w.m.instances[1]
	}},
	{StageCurrent, PhaseBackoff, "", func(t *testing.T) (*world, *instance) {
		w := serving(t)
		w.crash(1)
		return w, w.m.instances[2]
	}},
	{StageCurrent, PhaseStarting, "after a crash", func(t *testing.T) (*world, *instance) {
		w := serving(t)
		w.crash(1)
		w.expirePhase(2)
		w.answerStart(2, true)
		return w, w.m.instances[2]
	}},
	{StageCurrent, PhaseReady, "", func(t *testing.T) (*world, *instance) {
		w := serving(t)
		return w, w.m.instances[1]
	}},
	{StageCurrent, PhaseDraining, "ended, with processes left", func(t *testing.T) (*world, *instance) {
		w := serving(t)
		i := w.m.instances[1]
		w.end(w.processes[i.PID], Exit{Code: 1})
		return w, i
	}},
	{StageCurrent, PhaseKilling, "hung", func(t *testing.T) (*world, *instance) {
		w := serving(t)
		i := w.m.instances[1]
		w.expire(i.watchdog.Number)
		return w, i
	}},
	{StageCurrent, PhaseReady, "of its own sockets, its predecessor settling", func(t *testing.T) (*world, *instance) {
		w := replaced(t)
		return w, w.m.instances[2]
	}},
	{StageSettling, PhaseReady, "new connections are being sent to its successor", func(t *testing.T) (*world, *instance) {
		w := cuttingOver(t, steeredPolicy())
		return w, w.m.instances[1]
	}},
	{StageCurrent, PhaseReady, "of its own sockets, new connections are being sent to it", func(t *testing.T) (*world, *instance) {
		w := cuttingOver(t, steeredPolicy())
		return w, w.m.instances[2]
	}},
	{StageSettling, PhaseReady, "", func(t *testing.T) (*world, *instance) {
		w := replaced(t)
		return w, w.m.instances[1]
	}},
	{StageWarm, PhaseReady, "", func(t *testing.T) (*world, *instance) {
		w := warm(t)
		return w, w.m.instances[1]
	}},
	{StageEmptying, PhaseReady, "", func(t *testing.T) (*world, *instance) {
		w := replaced(t)
		w.expireRelief(1)
		return w, w.m.instances[1]
	}},
	{StageEmptying, PhaseBackoff, "of its own sockets, replaced after a crash", func(t *testing.T) (*world, *instance) {
		w := servingWith(t, steeredPolicy())
		w.crash(1)
		w.upgrade(t)
		return w, w.m.instances[2]
	}},
	{StageEmptying, PhaseStarting, "of its own sockets, for who waits there", func(t *testing.T) (*world, *instance) {
		w, i := awaitedAgain(t)
		w.answerStart(i.ID, true)
		return w, i
	}},
	{StageEmptying, PhaseReady, "of its own sockets, grace stops", func(t *testing.T) (*world, *instance) {
		w := servingWith(t, steeredPolicy())
		w.happen(StopRequested{})
		return w, w.m.instances[1]
	}},
	{StageClosing, PhaseReady, "its clients are asked to leave", func(t *testing.T) (*world, *instance) {
		w := closing(t)
		return w, w.m.instances[1]
	}},
	{StageClosing, PhaseReady, "grace stops, and it gets no new connections", func(t *testing.T) (*world, *instance) {
		w := turningAway(t)
		return w, w.m.instances[1]
	}},
	{StageClosing, PhaseReady, "what silent clients send is to be held back", func(t *testing.T) (*world, *instance) {
		w := closing(t)
		w.happen(Announced{Generation: 1})
		w.depart(1)
		return w, w.m.instances[1]
	}},
	{StageDraining, PhaseDraining, "", func(t *testing.T) (*world, *instance) {
		w, i := candidateStarted(t)
		w.readiness(i.ID, false)
		return w, w.m.instances[1]
	}},
	{StageDraining, PhaseKilling, "", func(t *testing.T) (*world, *instance) {
		w, i := candidateStarted(t)
		w.readiness(i.ID, false)
		w.expirePhase(1)
		return w, w.m.instances[1]
	}},
}

func anyPolicy() Policy {
	return Policy{
		Instances: 1, MaxDraining: 3, Restart: RestartOnFailure, StopSignal: syscall.SIGTERM,
		ReadyTimeout: time.Minute, DrainTimeout: 30 * time.Second, Watchdog: 10 * time.Second, Held: true, Shared: true,
	}
}

// serving has generation 1 with instance 1 in service.
func serving(t *testing.T) *world { return servingWith(t, anyPolicy()) }

func servingWith(t *testing.T, p Policy) *world {
	w := newWorld(t, p)
	w.answerPrepare(1, true)
	for id := range p.Instances {
		w.answerStart(id+1, true)
		w.readiness(id+1, false)
	}
	return w
}

// closing has generation 2 in service, and the clients of 1 leave.
func closing(t *testing.T) *world {
	p := anyPolicy()
	p.Farewell = time.Second
	w := servingWith(t, p)
	w.upgrade(t)
	return w
}

func steeredPolicy() Policy {
	p := anyPolicy()
	p.Held, p.Shared, p.Steered, p.Settle, p.Empty = false, false, true, 2*time.Second, p.DrainTimeout
	return p
}

// replaced has generation 2 in service, and 1 settling.
func replaced(t *testing.T) *world {
	w := servingWith(t, steeredPolicy())
	w.upgrade(t)
	return w
}

func (w *world) expireRelief(generation int) { w.expire(w.m.find(generation).leaveBy.Number) }

func upgrading(t *testing.T) *world {
	w := serving(t)
	w.happen(UpgradeRequested{})
	return w
}

func candidateStarted(t *testing.T) (*world, *instance) {
	w := upgrading(t)
	w.answerPrepare(2, true)
	w.answerStart(2, true)
	return w, w.m.instances[2]
}

func (w *world) crash(instance int) {
	p := w.processes[w.m.instances[instance].PID]
	w.end(p, Exit{Code: 1})
	w.happen(Emptied{instance, p.pid})
}

func (w *world) expirePhase(instance int) { w.expire(w.m.instances[instance].timer.Number) }

// occurrence is one event that can meet an instance.
type occurrence struct {
	name   string
	happen func(w *world, i *instance) bool // false: it cannot happen here
}

var occurrences = []occurrence{
	{"started", func(w *world, i *instance) bool {
		return w.starting[i.ID] && w.then(func() { w.answerStart(i.ID, true) })
	}},
	{"start failed", func(w *world, i *instance) bool {
		return w.starting[i.ID] && w.then(func() { w.answerStart(i.ID, false) })
	}},
	{"readied", func(w *world, i *instance) bool {
		return w.hasProcess(i.ID) && w.then(func() { w.happen(Readied{i.ID}) })
	}},
	{"exited with 0", exitedWith(Exit{})},
	{"exited with 1", exitedWith(Exit{Code: 1})},
	{"emptied", func(w *world, i *instance) bool {
		return i.Ended && w.then(func() { w.happen(Emptied{i.ID, i.PID}) })
	}},
	{"moved", func(w *world, i *instance) bool {
		return w.hasProcess(i.ID) && w.then(func() { w.move(i.ID) })
	}},
	{"STOPPING=1", func(w *world, i *instance) bool {
		return w.hasProcess(i.ID) && !i.Ended && w.then(func() { w.happen(Withdrawn{i.ID}) })
	}},
	{"the phase's time is over", func(w *world, i *instance) bool {
		return i.timer.Number != 0 && w.then(func() { w.expirePhase(i.ID) })
	}},
	{"its generation's time is over", func(w *world, i *instance) bool {
		g := i.generation
		return g.leaveBy.Number != 0 && w.then(func() { w.expireRelief(g.Number) })
	}},
	{"new connections go to the successor", func(w *world, _ *instance) bool {
		return len(w.cutovers) > 0 && w.then(func() { w.answerSteer("") })
	}},
	{"they cannot be sent to it", func(w *world, _ *instance) bool {
		return len(w.cutovers) > 0 && w.then(func() { w.answerSteer("no memory") })
	}},
	{"its generation is quiet", func(w *world, i *instance) bool {
		g := i.generation.Number
		return w.observed[g] && w.then(func() { w.quiet(g) })
	}},
	{"its clients are told", func(w *world, i *instance) bool {
		g := i.generation
		return w.departing[g.Number] && !g.asked && w.then(func() { w.happen(Announced{Generation: g.Number}) })
	}},
	{"its clients have left", func(w *world, i *instance) bool {
		g := i.generation.Number
		return w.departing[g] && w.then(func() { w.depart(g) })
	}},
	{"what silent clients send is held back", func(w *world, i *instance) bool {
		g := i.generation.Number
		return w.holding[g] && w.then(func() { w.held(g) })
	}},
	{"what waited was accepted", func(w *world, i *instance) bool {
		g := i.generation.Number
		return w.turning[g] && w.then(func() { w.turnedAway(g) })
	}},
	{"somebody waits where nobody accepts", func(w *world, i *instance) bool {
		g := i.generation.Number
		return w.observed[g] && w.then(func() { w.happen(Awaited{g}) })
	}},
	{"watchdog expired", func(w *world, i *instance) bool {
		return i.watchdog.Number != 0 && w.then(func() { w.expire(i.watchdog.Number) })
	}},
	{"promote", func(w *world, _ *instance) bool {
		return w.m.sharing() != nil && w.then(func() { w.happen(PromoteRequested{}) })
	}},
	{"its check fails", func(w *world, i *instance) bool {
		g := i.generation.Number
		return w.examined[g] && w.then(func() { w.happen(Rejected{g, "too slow"}) })
	}},
	{"it is too old", func(w *world, i *instance) bool {
		return i.generation.Stage == StageCurrent && i.Phase == PhaseReady && w.then(func() { w.happen(Unfit{Instance: i.ID, Why: "too old"}) })
	}},
	{"rollback", func(w *world, _ *instance) bool {
		return w.m.hasPrevious() && w.then(func() { w.happen(UpgradeRequested{Rollback: true}) })
	}},
	{"HUP", func(w *world, _ *instance) bool { return w.then(func() { w.happen(UpgradeRequested{}) }) }},
	{"TERM", func(w *world, _ *instance) bool { return w.then(func() { w.happen(StopRequested{}) }) }},
	{"QUIT", func(w *world, _ *instance) bool { return w.then(func() { w.happen(KillRequested{}) }) }},
	{"USR1", func(w *world, _ *instance) bool {
		return w.then(func() { w.happen(SignalReceived{Signal: syscall.SIGUSR1}) })
	}},
}

func exitedWith(exit Exit) func(*world, *instance) bool {
	return func(w *world, i *instance) bool {
		p := w.processes[i.PID]
		return p != nil && !p.ended && w.then(func() { w.end(p, exit) })
	}
}

func (w *world) then(do func()) bool {
	do()
	return true
}

func TestTransitionsDocument(t *testing.T) {
	got := transitionsHead + transitionsTable(t)
	if *update {
		if err := os.WriteFile(transitionsFile, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(transitionsFile)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s is stale: run go test ./supervisor/machine -run Transitions -update", transitionsFile)
	}
}

func transitionsTable(t *testing.T) string {
	var b strings.Builder
	for _, s := range situations {
		fmt.Fprintf(&b, "## %s: %s%s\n\n| event | what follows |\n|---|---|\n", s.stage, s.phase, remark(s.remark))
		for _, o := range occurrences {
			w, i := s.reach(t)
			if i.Phase != s.phase || i.generation.Stage != s.stage {
				t.Fatalf("reached %s %s instead of %s %s", i.generation.Stage, i.Phase, s.stage, s.phase)
			}
			w.seen = nil
			if o.happen(w, i) {
				fmt.Fprintf(&b, "| %s | %s |\n", o.name, consequence(w, i, s))
			}
		}
		b.WriteString("\n")
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func remark(text string) string {
	if text == "" {
		return ""
	}
	return " (" + text + ")"
}

func consequence(w *world, i *instance, s situation) string {
	var parts []string
	if i.Phase != s.phase {
		parts = append(parts, "→ "+i.Phase.String())
	}
	if g := i.generation; g.Stage != s.stage {
		parts = append(parts, "its generation is "+g.Stage.String())
	}
	for _, a := range w.seen {
		if text := describe(a, i); text != "" && !slices.Contains(parts, text) {
			parts = append(parts, text)
		}
	}
	if len(parts) == 0 {
		return "–"
	}
	return strings.Join(parts, "; ")
}

func describe(a Action, i *instance) string {
	other := func(instance int) string {
		if instance == i.ID {
			return ""
		}
		return " another instance"
	}
	switch a := a.(type) {
	case Report, Arm, Disarm, Dismiss, Release, Retire, Discard, Branch:
		return ""
	case Prepare:
		return "prepare a generation"
	case Abandon:
		return "abandon the preparation"
	case Start:
		return "start" + other(a.Instance)
	case Tell:
		return fmt.Sprintf("signal%s %s", other(a.Instance), name(a.Signal))
	case TellGroup:
		return fmt.Sprintf("signal its group%s %s", other(a.Instance), name(a.Signal))
	case TellRest:
		return fmt.Sprintf("signal what it left %s", name(a.Signal))
	case Kill:
		return "kill" + other(a.Instance)
	case Reap:
		return "reap"
	case Count:
		return "count connections"
	case Steer:
		if a.Generation == 0 {
			return "new connections are turned away"
		}
		if a.Beside != 0 {
			return fmt.Sprintf("send %s of the connections to generation %d, the others to generation %d", a.Share, a.Beside, a.Generation)
		}
		return fmt.Sprintf("send connections to generation %d", a.Generation)
	case Regroup:
		if slices.ContainsFunc(a.Moves, func(move Move) bool { return move.Instance == i.ID && move.Generation < Foreign }) {
			return "it gets no new connections"
		}
		return "others get no new connections"
	case Examine:
		return "check it"
	case TurnAway:
		return "keep new connections from it"
	case LetGo:
		return "its sockets are left to it"
	case Observe:
		return "watch its connections"
	case Announce:
		return "ask its clients to leave"
	case Recall:
		return "its clients may stay"
	case Hold:
		return "hold back what silent clients send"
	case Keep:
		return "serve its silent clients once it has closed their connections"
	case Part:
		return "wait for no request on kept connections"
	case Hasten:
		return "wait no longer than needed for the connections of earlier generations"
	case Answer:
		return "answer: " + string(a.Result.Outcome)
	case Finish:
		return fmt.Sprintf("grace ends with %d", a.Status)
	}
	return fmt.Sprintf("%T", a)
}

func name(s syscall.Signal) string {
	return map[syscall.Signal]string{syscall.SIGTERM: "TERM", syscall.SIGUSR1: "USR1", syscall.SIGKILL: "KILL"}[s]
}
