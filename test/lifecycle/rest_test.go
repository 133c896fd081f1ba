package lifecycle

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/gracerun/grace/cmd/load"
	"github.com/gracerun/grace/test/harness"
	"golang.org/x/sys/unix"
)

// wrappers start the app in ways that keep the stop signal from it, or it from its process group.
var wrappers = map[string]string{
	"shell that does not exec": appBinaryHere + "\nexit $?\n",
	"pipeline":                 appBinaryHere + " 2>&1 | cat >&2\n",
	"job control":              "set -m\n" + appBinaryHere + " &\nfg %1 >/dev/null\n",
	"setsid":                   "setsid " + appBinaryHere + " &\nwait\n",
	"empty environment":        "env -i setsid " + appBinaryHere + " &\nwait\n",
}

const appBinaryHere = "$APP -take fd:3"

// leftBehind gives the process that the log names.
func leftBehind(s *harness.Grace, generation int) int {
	s.T.Helper()
	e := s.AwaitGeneration("stopping processes that the instance left behind", generation)
	_, after, _ := strings.Cut(e.Why, "pid ")
	number, _, _ := strings.Cut(after, " ")
	pid, err := strconv.Atoi(number)
	if err != nil {
		s.T.Fatalf("no process is named: %q", e.Why)
	}
	return pid
}

func TestWhatAWrapperLeavesBehindIsToldToStop(t *testing.T) {
	for name, script := range wrappers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := harness.StartScript(t, script, "--listen", "web=127.0.0.1:0")
			addr := s.Address("web")
			s.AwaitReady(1)
			harness.UnderLoad(t, load.Config{Addr: addr, Clients: map[load.Kind]int{load.NewConnection: 4}}, func() {
				s.Upgrade(2)
				s.AwaitGeneration("generation ended", 1)
			})
			harness.CheckEnded(t, leftBehind(s, 1))
			if body := harness.Get(t, addr, "/"); !strings.Contains(body, "generation 2") && name != "empty environment" {
				t.Errorf("got %q", body)
			}
			s.Signal(unix.SIGTERM)
			s.Ends(0)
			harness.CheckEnded(t, leftBehind(s, 2))
		})
	}
}

func TestWhatACapturedWrapperLeavesBehindIsToldToStop(t *testing.T) {
	s := harness.StartScript(t, "$APP -addr 127.0.0.1:0\nexit $?\n")
	s.AwaitReady(1)
	s.Signal(unix.SIGTERM)
	s.Ends(0)
	leftBehind(s, 1)
}

// Who has heard of the stop from its wrapper is not told once more, as that would cut what it finishes.
func TestWhoWasToldToStopIsNotToldAgain(t *testing.T) {
	stopInARequest(t, `trap 'kill -TERM $!; exit 0' TERM; $APP -take fd:3 & wait`, "finishes by itself")
}

// The app of a pipeline that logs while it drains would not survive the end of who reads that.
func TestReaderOfTheLogIsNotToldToStop(t *testing.T) {
	stopInARequest(t, "$APP -take fd:3 2>&1 | cat >&2\n", "(cat, which finishes by itself)")
}

// stopInARequest wants this to be told of what is left behind, and the request to be answered.
func stopInARequest(t *testing.T, script, told string) {
	t.Helper()
	s := harness.StartScript(t, script, "--listen", "web=127.0.0.1:0")
	addr := s.Address("web")
	s.AwaitReady(1)
	r := harness.BeginRequest(t, addr)
	s.Signal(unix.SIGTERM)
	if e := s.AwaitGeneration("stopping processes that the instance left behind", 1); !strings.Contains(e.Why, told) {
		t.Errorf("why: %s", e.Why)
	}
	r.Finish()
	s.Ends(0)
}

// unshare blocks the stop signal and waits for its child.
func TestChildOfWhoTakesNoStopSignalIsToldToStop(t *testing.T) {
	for name, script := range map[string]string{
		"blocked":          "exec unshare --fork $APP -take fd:3",
		"blocked twice":    "exec unshare --fork unshare --fork $APP -take fd:3",
		"ignored thrice":   `trap "" TERM; sh -c "sh -c '$APP -take fd:3; exit \$?'; exit \$?"; exit $?`,
		"blocked, ignored": `exec unshare --fork sh -c "trap '' TERM; $APP -take fd:3; exit \$?"`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := harness.StartScript(t, script, "--listen", "web=127.0.0.1:0")
			addr := s.Address("web")
			s.AwaitReady(1)
			harness.UnderLoad(t, load.Config{Addr: addr, Clients: map[load.Kind]int{load.NewConnection: 4}}, func() {
				s.Upgrade(2)
				s.AwaitGeneration("generation ended", 1)
			})
			s.Signal(unix.SIGTERM)
			s.Ends(0)
			if s.Said("drain timed out") {
				t.Error("somebody was killed")
			}
		})
	}
}

func TestStopGroupTellsAllAtOnce(t *testing.T) {
	s := harness.StartScript(t, `trap 'echo told; wait' TERM; $APP -take fd:3; wait`, "--listen", "web=127.0.0.1:0", "--stop-group")
	s.AwaitReady(1)
	s.Signal(unix.SIGTERM)
	s.Ends(0)
	if s.Said("stopping processes that the instance left behind") {
		t.Error("somebody was left behind")
	}
}

// What ignores the stop signal is killed at the deadline, wherever it has gone.
func TestWhatIsLeftBehindIsKilledAtTheDeadline(t *testing.T) {
	t.Parallel()
	out := t.TempDir() + "/pid"
	s := harness.StartScript(t, `(trap "" TERM; exec setsid sh -c 'echo $$ >`+out+`; exec sleep 1000') & exec $APP -take fd:3`, "--listen", "web=127.0.0.1:0", "--drain-timeout", "5s")
	s.AwaitReady(1)
	s.Upgrade(2)
	pid := leftBehind(s, 1)
	s.AwaitGeneration("generation ended", 1)
	harness.CheckEnded(t, pid)
	if e := s.AwaitGeneration("drain timed out, killing the instance", 1); !strings.Contains(e.Why, strconv.Itoa(pid)) {
		t.Errorf("why: %s", e.Why)
	}
	s.Signal(unix.SIGTERM)
	s.Ends(137)
	if text, err := os.ReadFile(out); err == nil {
		if last, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
			harness.CheckEnded(t, last)
		}
	}
}

// A candidate that fails, and a readiness command that hangs, leave nothing behind either.
func TestFailedCandidateLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	dir, hanging, beside := t.TempDir(), harness.NewSleep(), harness.NewSleep()
	hang := "test -e " + dir + "/good && exit 0; setsid " + hanging + " & wait # {pid}"
	harness.Write(t, dir, "good", "", 0o644)
	s := harness.StartScript(t, "setsid "+beside+" & $APP -take fd:3", "--listen", "web=127.0.0.1:0", "--ready", "cmd:"+hang, "--ready-timeout", "8s")
	s.AwaitReady(1)
	if err := os.Remove(dir + "/good"); err != nil {
		t.Fatal(err)
	}
	s.Signal(unix.SIGHUP)
	s.AwaitMessage("upgrade failed")
	s.AwaitGeneration("generation ended", 2)
	if pids := harness.PIDsOf(t, hanging); len(pids) > 0 {
		t.Errorf("of the readiness command there is still %v", pids)
	}
	if pids := harness.PIDsOf(t, beside); len(pids) != 1 {
		t.Errorf("of one generation there is %v", pids)
	}
	s.Stop()
}
