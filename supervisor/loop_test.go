package supervisor

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gracerun/grace/supervisor/machine"
	"github.com/rs/zerolog"
)

func testPolicy() machine.Policy {
	return machine.Policy{
		Instances: 1, MaxDraining: 3, Restart: machine.RestartOnFailure, StopSignal: syscall.SIGTERM,
		ReadyTimeout: time.Minute, DrainTimeout: 30 * time.Second, Watchdog: 10 * time.Second, Held: true,
	}
}

func recipeOfApp(p machine.Prepare) machine.LaunchSpec {
	return machine.LaunchSpec{Command: p.Command, Path: "/app", Executable: "/app", Dir: "/"}
}

// fakeHost answers at once: every preparation and start succeeds, every app is
// ready after startTime, and ends drainTime after it is told to, or at KILL.
type fakeHost struct {
	post                 func(machine.Event)
	startTime, drainTime time.Duration
	crashAfter           time.Duration // of the first instance only
	begun                map[int]time.Time
	kills                map[int]int
	told                 map[int]time.Time
}

// fakePerformer has a fake in place of the host.
type fakePerformer struct {
	*loop
	*timers
	*callers
	*fakeHost
}

func (f *fakeHost) attach(l *loop) {
	f.post, l.performer = l.post, fakePerformer{l, l.timers, l.callers, f}
	f.begun, f.told, f.kills = map[int]time.Time{}, map[int]time.Time{}, map[int]int{}
}

func (f *fakeHost) answer(after time.Duration, ev machine.Event) {
	time.AfterFunc(after, func() { f.post(ev) })
}

func (f *fakeHost) Prepare(p machine.Prepare) {
	f.answer(0, machine.Prepared{Generation: p.Generation, Launch: recipeOfApp(p)})
}
func (f *fakeHost) Abandon(machine.Abandon) {}

func (f *fakeHost) Follow(machine.Follow) {}

func (f *fakeHost) Leave(machine.Leave) {}

func (f *fakeHost) Branch(machine.Branch) {}

func (f *fakeHost) Regroup(machine.Regroup) {}

func (f *fakeHost) Examine(machine.Examine) {}

func (f *fakeHost) Detach(machine.Detach) {}

func (f *fakeHost) Start(s machine.Start) {
	f.begun[s.Instance] = time.Now()
	f.answer(time.Nanosecond, machine.Started{Instance: s.Instance, PID: s.Instance})
	f.answer(f.startTime, machine.Readied{Instance: s.Instance})
	if s.Instance == 1 && f.crashAfter > 0 {
		f.end(1, f.crashAfter, machine.Exit{Code: 1})
	}
}

func (f *fakeHost) end(instance int, after time.Duration, exit machine.Exit) {
	f.answer(after, machine.Exited{Instance: instance, PID: instance, Exit: exit})
	f.answer(after+time.Nanosecond, machine.Emptied{Instance: instance, PID: instance})
}

func (f *fakeHost) Tell(t machine.Tell) {
	f.told[t.Instance] = time.Now()
	if f.drainTime > 0 {
		f.end(t.Instance, f.drainTime, machine.Exit{})
	}
}

func (f *fakeHost) Dismiss(machine.Dismiss) {}
func (f *fakeHost) TurnAway(t machine.TurnAway) {
	f.answer(0, machine.TurnedAway(t))
}
func (f *fakeHost) LetGo(machine.LetGo)         {}
func (f *fakeHost) Observe(machine.Observe)     {}
func (f *fakeHost) TellGroup(machine.TellGroup) {}
func (f *fakeHost) TellRest(machine.TellRest)   {}
func (f *fakeHost) Recall(machine.Recall)       {}
func (f *fakeHost) Part(machine.Part)           {}
func (f *fakeHost) Hasten(machine.Hasten)       {}

func (f *fakeHost) Announce(a machine.Announce) {
	f.answer(0, machine.Announced{Generation: a.Generation})
	f.answer(time.Nanosecond, machine.Departed{Generation: a.Generation})
}
func (f *fakeHost) Hold(h machine.Hold) { f.answer(0, machine.Held{Generation: h.Generation}) }
func (f *fakeHost) Keep(k machine.Keep) { f.answer(0, machine.Kept{Generation: k.Generation}) }

func (f *fakeHost) Steer(s machine.Steer) { f.answer(0, machine.Steered{Generation: s.Generation}) }

func (f *fakeHost) Kill(k machine.Kill) {
	f.kills[k.Instance]++
	f.end(k.Instance, time.Nanosecond, machine.Exit{Signal: syscall.SIGKILL})
}

func (f *fakeHost) Reap(machine.Reap)       {}
func (f *fakeHost) Release(machine.Release) {}
func (f *fakeHost) Retire(machine.Retire)   {}
func (f *fakeHost) Discard(machine.Discard) {}
func (f *fakeHost) Count(c machine.Count) {
	f.answer(0, machine.Counted{Generation: c.Generation, InFlight: 7})
}

// startLoop runs one in a goroutine of its own.
func startLoop(f *fakeHost, p machine.Policy) *loop {
	l := newLoop(p, "nowhere")
	f.attach(l)
	go l.run()
	return l
}

// schedule is what happens when, counted from the start of the loop.
type schedule map[time.Duration]machine.Event

// runLoop runs a loop over f until what happens makes it end.
func runLoop(f *fakeHost, p machine.Policy, happens schedule) (l *loop, status int, lines []string) {
	var log bytes.Buffer
	l = newLoop(p, "nowhere", &logSink{zerolog.New(&log)})
	f.attach(l)
	for at, ev := range happens {
		f.answer(at, ev)
	}
	status = l.run()
	synctest.Wait()
	return l, status, strings.Split(strings.TrimSpace(log.String()), "\n")
}

func messages(t *testing.T, lines []string) []string {
	t.Helper()
	texts := make([]string, len(lines))
	for i, line := range lines {
		var entry struct{ Message string }
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Fatalf("log line %q: %v", line, err)
		}
		texts[i] = entry.Message
	}
	return texts
}

func TestLoopUpgradesAndStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeHost{startTime: 400 * time.Millisecond, drainTime: 2 * time.Second}
		_, status, lines := runLoop(f, testPolicy(), schedule{time.Second: machine.UpgradeRequested{}, 2 * time.Second: machine.StopRequested{}})
		if status != 0 {
			t.Errorf("status %d", status)
		}
		want := []string{
			"instance started", "instance ready", "generation ready",
			"upgrade begins", "instance started", "instance ready", "generation ready", "generation draining", "upgraded",
			"stopping", "generation draining", "draining (7 connections in flight)",
			"draining (7 connections in flight)", "instance ended", "generation ended", "instance ended", "generation ended",
		}
		if got := messages(t, lines); !slices.Equal(got, want) {
			t.Errorf("the log says\n%s\ninstead of\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		if late := f.told[1].Sub(f.begun[2]); late != f.startTime {
			t.Errorf("the old generation was told %s after the new one was started, which needs %s", late, f.startTime)
		}
	})
}

func TestLoopKillsAtTheDrainDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		f := &fakeHost{}
		_, status, lines := runLoop(f, testPolicy(), schedule{time.Second: machine.StopRequested{}})
		if status != 137 || f.kills[1] != 1 {
			t.Errorf("status %d, kills %v", status, f.kills)
		}
		if took := time.Since(begun).Truncate(time.Millisecond); took != 31*time.Second {
			t.Errorf("it took %s", took)
		}
		progress := 0
		for _, text := range messages(t, lines) {
			if text == "draining (7 connections in flight)" {
				progress++
			}
		}
		if progress != 6 { // at 1, 6, 11, 16, 21 and 26 seconds
			t.Errorf("progress was told %d times", progress)
		}
	})
}

func TestLoopRestartsWithJitter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeHost{startTime: time.Millisecond, drainTime: time.Millisecond, crashAfter: time.Second}
		begun := time.Now()
		runLoop(f, testPolicy(), schedule{10 * time.Second: machine.StopRequested{}})
		waited := f.begun[2].Sub(begun) - time.Second
		if waited < machine.FirstBackoff || waited > machine.FirstBackoff*3/2+time.Millisecond {
			t.Errorf("restarted after %s", waited)
		}
	})
}

func TestPostAfterTheEndDoesNotBlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _, _ := runLoop(&fakeHost{drainTime: time.Millisecond}, testPolicy(), schedule{time.Second: machine.StopRequested{}})
		l.post(machine.UpgradeRequested{})
	})
}
