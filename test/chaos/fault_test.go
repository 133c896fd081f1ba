package chaos

import (
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/gracerun/grace/supervisor/control"
)

// fault is one thing that can happen. It returns when that is over; the grace process may have to recover still.
type fault struct {
	name   string
	weight int // how often it is in a deck
	do     func(*grace, *rand.Rand)
	needs  func(*grace) bool // nil: it is possible everywhere
}

// faults are in an order that a seed depends on.
func faults() []fault {
	return append([]fault{
		{"hangup", 3, hangup, nil},
		{"flood of hangups", 1, hangups, nil},
		{"good upgrade", 3, goodUpgrade, nil},
		{"crashing candidate", 2, crashingCandidate, nil},
		{"candidate killed", 1, killedCandidate, nil},
		{"never ready candidate", 1, neverReady, nil},
		{"hanging candidate", 1, hangingCandidate, nil},
		{"killed after its promotion", 2, killedAfterPromotion, undoneWithoutLoss},
		{"rollback", 2, rollback, nil},
		{"instance killed", 3, killed, nil},
		{"upgrade after a kill", 2, killedAndUpgraded, nil},
		{"instance stopped", 2, stopped, nil},
		{"upgrade over a stopped instance", 1, stoppedAndUpgraded, finishes},
		{"grace stopped", 2, frozen, nil},
		{"reexec", 2, reexec, nil},
		{"reexec to a broken program", 2, brokenReexec, nil},
		{"reexec to a hanging program", 1, hangingReexec, nil},
		{"flood of status", 1, statusFlood, nil},
		{"flood of upgrades", 1, upgradeFlood, nil},
		{"half-open connections", 1, halfOpen, nil},
		{"garbage", 1, garbage, nil},
		{"slow readers", 1, slowReaders, nil},
		{"runtime directory removed", 1, runtimeRemoved, nil},
		{"runtime directory full", 1, runtimeFull, func(g *grace) bool { return g.mounted }},
		{"no descriptors", 1, noDescriptors, finishes},
		{"no processes", 1, noProcesses, func(g *grace) bool { return g.attributes().Credential != nil || os.Geteuid() != 0 }},
	}, strategies()...)
}

// finishes: the app answers what it has accepted when it is told to stop. One that knows nothing of grace closes connections
// on which a request waits unread, and grace keeps none for which it has no descriptor.
func finishes(g *grace) bool { return !g.plain }

// deck is every fault as often as it weighs, in random order.
func (g *grace) deck(number int) (deck []fault) {
	for _, f := range faults() {
		if f.chosen() && (f.needs == nil || f.needs(g)) {
			deck = append(deck, slices.Repeat([]fault{f}, f.weight)...)
		}
	}
	random := g.random(number)
	random.Shuffle(len(deck), func(i, j int) { deck[i], deck[j] = deck[j], deck[i] })
	return deck
}

func (f fault) chosen() bool {
	if *only != "" {
		return slices.Contains(strings.Split(*only, ","), f.name)
	}
	return !slices.Contains(strings.Split(*without, ","), f.name)
}

// pick gives one of several.
func pick[T any](random *rand.Rand, of ...T) T { return of[random.IntN(len(of))] }

// pause is part of a fault: how long it lasts.
func pause(random *rand.Rand, longest time.Duration) {
	time.Sleep(time.Duration(random.Int64N(int64(longest))))
}

// another is a command that works and is not the one before.
func another(g *grace, random *rand.Rand) []string {
	return g.app("-delay", time.Duration(random.IntN(200)*int(time.Millisecond)).String())
}

func hangup(g *grace, _ *rand.Rand) {
	before := g.await("it serves", serving).Current
	g.signal(syscall.SIGHUP)
	g.await("a hangup is followed", func(s control.Status) bool { return serving(s) && s.Current > before })
}

func hangups(g *grace, random *rand.Rand) {
	before := g.await("it serves", serving).Current
	for range 10 + random.IntN(190) {
		g.signal(syscall.SIGHUP)
	}
	g.await("hangups are followed", func(s control.Status) bool { return serving(s) && s.Current > before })
}

func (g *grace) signal(sig syscall.Signal) {
	pid, _ := g.pid()
	if err := syscall.Kill(pid, sig); err != nil {
		g.lose("cannot signal grace: %v", err)
	}
}

func goodUpgrade(g *grace, random *rand.Rand) { g.mustUpgrade(another(g, random)) }

// mustUpgrade asks for a generation that has to serve.
func (g *grace) mustUpgrade(command []string) control.Result {
	result := g.mustAsk(control.Request{Do: control.Upgrade, Command: command})
	if result.Outcome != control.Upgraded || result.Serving != result.Generation {
		g.find("an upgrade to what works: %s, %d serves: %s", result.Outcome, result.Serving, result.Why)
	}
	g.agree(result)
	return result
}

// agree compares an answer with what serves.
func (g *grace) agree(result control.Result) {
	s := g.await("it serves", serving)
	if s.Current != result.Serving {
		g.find("the answer was that %d serves, and %d does", result.Serving, s.Current)
	}
	g.answeredBy(s.Current)
}

// mustFail asks for a generation that cannot serve.
func (g *grace) mustFail(command []string) {
	before := g.await("it serves", serving).Current
	g.mustHaveFailed(before, g.mustAsk(control.Request{Do: control.Upgrade, Command: command}))
}

func (g *grace) mustHaveFailed(before int, result control.Result) {
	if result.Outcome != control.Failed || result.Serving != before {
		g.find("an upgrade to what does not work: %s, %d serves, before it was %d", result.Outcome, result.Serving, before)
	}
	g.agree(result)
}

func crashingCandidate(g *grace, random *rand.Rand) {
	g.mustFail(pick(random,
		[]string{"/bin/sh", "-c", "exit 3"},
		[]string{"/bin/sh", "-c", "exit 0"},
		[]string{"/bin/sh", "-c", "sleep 0.2; exit 7"},
		[]string{"/bin/sh", "-c", "kill -9 $$"},
		[]string{"/bin/sh", "-c", "sleep 1000 & exit 3"}, // what it leaves has to end
		[]string{"/no/such/program"},
		g.app("-fail", "/"),
	))
}

// begin asks for an upgrade and goes on.
func (g *grace) begin(command []string) (result chan control.Result) {
	return g.beginWith(control.Request{Do: control.Upgrade, Command: command})
}

// attemptElsewhere is for goroutines beside the one that has the grace process, which finds out by itself.
func (g *grace) attemptElsewhere(do func()) {
	defer func() {
		if problem := recover(); problem != nil && problem != (lost{}) {
			panic(problem)
		}
	}()
	do()
}

// end waits for what was begun.
func (g *grace) end(result chan control.Result) control.Result {
	r, ok := <-result
	if !ok {
		panic(lost{}) // what was found is told already
	}
	return r
}

// candidate waits for a process of a generation after that.
func (g *grace) candidate(after int) (pid int) {
	g.await("a candidate is started", func(s control.Status) bool {
		for _, generation := range s.Generations {
			if generation.Number > after && len(generation.Instances) > 0 && generation.Phase == "candidate" {
				pid = generation.Instances[0].PID
			}
		}
		return pid > 0
	})
	return pid
}

func killedCandidate(g *grace, _ *rand.Rand) {
	before := g.await("it serves", serving).Current
	result := g.begin([]string{"/bin/sleep", "1000"})
	g.kill(g.candidate(before))
	g.mustHaveFailed(before, g.end(result))
}

// meanwhile are the faults that come while a candidate is waited for, and ask for no other.
var meanwhile = []func(*grace, *rand.Rand){killed, stopped, thawed, statusFlood, halfOpen, garbage, slowReaders}

func (g *grace) whileItStarts(random *rand.Rand, command []string) {
	before := g.await("it serves", serving).Current
	result := g.begin(command)
	g.candidate(before)
	for range 1 + random.IntN(3) {
		pick(random, meanwhile...)(g, random)
	}
	g.mustHaveFailed(before, g.end(result))
}

func neverReady(g *grace, random *rand.Rand) { g.whileItStarts(random, []string{"/bin/sleep", "1000"}) }

// hangingCandidate does not end when it is told to, either.
func hangingCandidate(g *grace, random *rand.Rand) {
	g.whileItStarts(random, pick(random, g.app("-delay", "1h"), []string{"/bin/sh", "-c", "kill -STOP $$; exit 1"}))
}

// killedAfterPromotion: the old generation can take over again, or a new instance is started.
func killedAfterPromotion(g *grace, random *rand.Rand) {
	before := g.await("it serves", serving).Current
	result := g.begin(another(g, random))
	var pid int
	g.await("the new generation serves", func(s control.Status) bool {
		for _, generation := range s.Generations {
			if generation.Number > before && generation.Phase == "current" && len(generation.Instances) > 0 {
				pid = generation.Instances[0].PID
			}
		}
		return pid > 0
	})
	g.kill(pid)
	r := g.end(result)
	switch {
	case r.Outcome == control.Upgraded && r.Serving == r.Generation:
	case r.Outcome == control.Undone && r.Serving == before && g.kind.own:
	default:
		g.find("an upgrade to what is killed when it serves: %s, %d serves: %s", r.Outcome, r.Serving, r.Why)
	}
	g.agree(r)
}

// undoneWithoutLoss: who waits in the queue of a generation that is undone is reset, unless the kernel moves him.
func undoneWithoutLoss(g *grace) bool {
	return !g.kind.own || g.run.migrates && g.kind.network == "tcp"
}

func rollback(g *grace, _ *rand.Rand) {
	result := g.mustAsk(control.Request{Do: control.Rollback})
	if result.Outcome != control.Upgraded {
		g.find("a rollback to what works: %s: %s", result.Outcome, result.Why)
	}
	g.agree(result)
}

// victim is any instance that has a process.
func (g *grace) victim(random *rand.Rand, phases ...string) (pid int) {
	s := g.await("there is an instance", func(s control.Status) bool { return len(instances(s, phases)) > 0 })
	return pick(random, instances(s, phases)...)
}

func instances(s control.Status, phases []string) (pids []int) {
	for _, generation := range s.Generations {
		if len(phases) > 0 && !slices.Contains(phases, generation.Phase) {
			continue
		}
		for _, i := range generation.Instances {
			if i.PID > 0 {
				pids = append(pids, i.PID)
			}
		}
	}
	return pids
}

// stop gives when all threads of a process have stopped. It insists: a program with threads that is just being executed
// forgets a SIGSTOP (zap_other_threads in kernel/signal.c).
func (g *grace) stop(pid int) {
	if !g.has(pid) || syscall.Kill(pid, syscall.SIGSTOP) != nil {
		return // it has ended by itself
	}
	for limit := time.Now().Add(patience); !halted(pid); time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			g.lose("process %d does not stop", pid)
		}
		if syscall.Kill(pid, syscall.SIGSTOP) != nil {
			return
		}
	}
}

// kill ends an instance and notes what it had accepted.
// It reports whether there was anything to kill: what has begun to become the app cannot be told from others for a moment.
func (g *grace) kill(pid int) bool {
	if !g.has(pid) {
		return false
	}
	g.stop(pid)
	if clients, err := accepted(pid); err == nil { // or it has ended by itself
		g.casualties.add(clients)
		g.run.book.note(g.name, "process %d is killed with %v", pid, clients)
	}
	_ = syscall.Kill(pid, syscall.SIGKILL)
	return true
}

func killed(g *grace, random *rand.Rand) { g.kill(g.victim(random)) }

// killedAndUpgraded does not wait for the restart: who waits in the queue has to be answered by the successor. That has to
// know of the end: a candidate that has a socket of its own already cannot have another one's.
func killedAndUpgraded(g *grace, random *rand.Rand) {
	for range 1 + random.IntN(3) {
		pid := g.victim(random, "current")
		if !g.kill(pid) {
			continue
		}
		g.await("an end is seen", func(s control.Status) bool { return !slices.Contains(instances(s, nil), pid) })
	}
	g.shares = true
	g.mustUpgrade(another(g, random))
}

func stopped(g *grace, random *rand.Rand) {
	pid := g.victim(random)
	g.stop(pid)
	pause(random, 500*time.Millisecond)
	_ = syscall.Kill(pid, syscall.SIGCONT) // it may have ended
}

func stoppedAndUpgraded(g *grace, random *rand.Rand) {
	pid := g.victim(random, "current")
	g.stop(pid)
	g.mustUpgradeUnheard(another(g, random))
	_ = syscall.Kill(pid, syscall.SIGCONT)
}

// mustUpgradeUnheard is mustUpgrade while an old instance cannot let go of what it has.
func (g *grace) mustUpgradeUnheard(command []string) {
	result := g.mustAsk(control.Request{Do: control.Upgrade, Command: command})
	if result.Outcome != control.Upgraded {
		g.find("an upgrade over a stopped instance: %s: %s", result.Outcome, result.Why)
	}
}
