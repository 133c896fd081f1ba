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
			if status := s.Wait(); status != 0 {
				t.Errorf("status %d", status)
			}
			harness.CheckEnded(t, leftBehind(s, 2))
		})
	}
}

func TestWhatACapturedWrapperLeavesBehindIsToldToStop(t *testing.T) {
	s := harness.StartScript(t, "$APP -addr 127.0.0.1:0\nexit $?\n")
	s.AwaitReady(1)
	s.Signal(unix.SIGTERM)
	if status := s.Wait(); status != 0 {
		t.Errorf("status %d", status)
	}
	leftBehind(s, 1)
}

// Who has heard of the stop from its wrapper is not told once more, as that would cut what it finishes.
func TestWhoWasToldToStopIsNotToldAgain(t *testing.T) {
	s := harness.StartScript(t, `$APP -take fd:3 & app=$!; trap 'kill -TERM $app; exit 0' TERM; wait`, "--listen", "web=127.0.0.1:0")
	addr := s.Address("web")
	s.AwaitReady(1)
	r := harness.BeginRequest(t, addr)
	s.Signal(unix.SIGTERM)
	if e := s.AwaitGeneration("stopping processes that the instance left behind", 1); !strings.Contains(e.Why, "finishes by itself") {
		t.Errorf("why: %s", e.Why)
	}
	r.Finish()
	if status := s.Wait(); status != 0 {
		t.Errorf("status %d", status)
	}
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
			if status := s.Wait(); status != 0 || s.Said("drain timed out") {
				t.Errorf("status %d", status)
			}
		})
	}
}

func TestStopGroupTellsAllAtOnce(t *testing.T) {
	s := harness.StartScript(t, `trap 'echo told; wait' TERM; $APP -take fd:3; wait`, "--listen", "web=127.0.0.1:0", "--stop-group")
	s.AwaitReady(1)
	s.Signal(unix.SIGTERM)
	if status := s.Wait(); status != 0 || s.Said("stopping processes that the instance left behind") {
		t.Errorf("status %d", status)
	}
}

// What ignores the stop signal is killed at the deadline, wherever it has gone.
func TestWhatIsLeftBehindIsKilledAtTheDeadline(t *testing.T) {
	out := t.TempDir() + "/pid"
	s := harness.StartScript(t, `(trap "" TERM; exec setsid sh -c 'echo $$ >`+out+`; exec sleep 1000') & exec $APP -take fd:3`, "--listen", "web=127.0.0.1:0", "--drain-timeout", "500ms")
	s.AwaitReady(1)
	s.Upgrade(2)
	pid := leftBehind(s, 1)
	s.AwaitGeneration("generation ended", 1)
	harness.CheckEnded(t, pid)
	if e := s.AwaitGeneration("drain timed out, killing the instance", 1); !strings.Contains(e.Why, strconv.Itoa(pid)) {
		t.Errorf("why: %s", e.Why)
	}
	s.Signal(unix.SIGTERM)
	if status := s.Wait(); status != 137 {
		t.Errorf("status %d", status)
	}
	if text, err := os.ReadFile(out); err == nil {
		if last, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
			harness.CheckEnded(t, last)
		}
	}
}

// A candidate that fails, and a readiness command that hangs, leave nothing behind either.
func TestFailedCandidateLeavesNothingBehind(t *testing.T) {
	dir := t.TempDir()
	hang := "test -e " + dir + "/good && exit 0; setsid sleep 4711 & wait # {pid}"
	harness.Write(t, dir, "good", "", 0o644)
	s := harness.StartScript(t, `setsid sleep 4712 & $APP -take fd:3`, "--listen", "web=127.0.0.1:0", "--ready", "cmd:"+hang, "--ready-timeout", "2s")
	s.AwaitReady(1)
	if err := os.Remove(dir + "/good"); err != nil {
		t.Fatal(err)
	}
	s.Signal(unix.SIGHUP)
	s.AwaitMessage("upgrade failed")
	s.AwaitGeneration("generation ended", 2)
	if pids := harness.PIDsOf(t, "sleep\x004711\x00"); len(pids) > 0 {
		t.Errorf("of the readiness command there is still %v", pids)
	}
	if pids := harness.PIDsOf(t, "sleep\x004712\x00"); len(pids) != 1 {
		t.Errorf("of one generation there is %v", pids)
	}
	s.Stop()
}
