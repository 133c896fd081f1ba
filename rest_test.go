//go:build linux

package main

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/gracerun/grace/childproc"
	"github.com/gracerun/grace/cmd/load"
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

func wrapped(t *testing.T, script string, flags ...string) *supervised {
	t.Helper()
	program := write(t, t.TempDir(), "wrapper", "#!/bin/bash\nAPP="+appBinary+"\n"+script, 0o755)
	return grace(t, append(flags, "--", program)...)
}

// leftBehind gives the process that the log names.
func leftBehind(s *supervised, generation int) int {
	s.t.Helper()
	e := s.awaitOf("processes left behind are told to stop", generation)
	_, after, _ := strings.Cut(e.Why, "pid ")
	number, _, _ := strings.Cut(after, " ")
	pid, err := strconv.Atoi(number)
	if err != nil {
		s.t.Fatalf("no process is named: %q", e.Why)
	}
	return pid
}

func TestWhatAWrapperLeavesBehindIsToldToStop(t *testing.T) {
	for name, script := range wrappers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := wrapped(t, script, "--listen", "web=127.0.0.1:0")
			addr := s.address("web")
			s.ready(1)
			under(t, load.Config{Addr: addr, Clients: map[load.Kind]int{load.NewConnection: 4}}, func() {
				s.upgrade(2)
				s.awaitOf("generation ended", 1)
			})
			if pid := leftBehind(s, 1); unix.Kill(pid, 0) != unix.ESRCH {
				t.Errorf("process %d of the ended generation is there", pid)
			}
			if body := ask(t, addr, "/"); !strings.Contains(body, "generation 2") && name != "empty environment" {
				t.Errorf("got %q", body)
			}
			s.signal(unix.SIGTERM)
			if status := s.wait(); status != 0 {
				t.Errorf("status %d", status)
			}
			if pid := leftBehind(s, 2); unix.Kill(pid, 0) != unix.ESRCH {
				t.Errorf("process %d is there after the end of grace", pid)
			}
		})
	}
}

func TestWhatACapturedWrapperLeavesBehindIsToldToStop(t *testing.T) {
	s := wrapped(t, "$APP -addr 127.0.0.1:0\nexit $?\n")
	s.ready(1)
	s.signal(unix.SIGTERM)
	if status := s.wait(); status != 0 {
		t.Errorf("status %d", status)
	}
	leftBehind(s, 1)
}

// Who has heard of the stop from its wrapper is not told once more, as that would cut what it finishes.
func TestWhoWasToldToStopIsNotToldAgain(t *testing.T) {
	s := wrapped(t, `$APP -take fd:3 & app=$!; trap 'kill -TERM $app; exit 0' TERM; wait`, "--listen", "web=127.0.0.1:0")
	addr := s.address("web")
	s.ready(1)
	r := begin(t, addr)
	s.signal(unix.SIGTERM)
	if e := s.awaitOf("processes left behind", 1); !strings.Contains(e.Why, "finishes by itself") {
		t.Errorf("why: %s", e.Why)
	}
	r.finish()
	if status := s.wait(); status != 0 {
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
			s := wrapped(t, script, "--listen", "web=127.0.0.1:0")
			addr := s.address("web")
			s.ready(1)
			under(t, load.Config{Addr: addr, Clients: map[load.Kind]int{load.NewConnection: 4}}, func() {
				s.upgrade(2)
				s.awaitOf("generation ended", 1)
			})
			s.signal(unix.SIGTERM)
			if status := s.wait(); status != 0 || s.said("killing") {
				t.Errorf("status %d", status)
			}
		})
	}
}

func TestStopGroupTellsAllAtOnce(t *testing.T) {
	s := wrapped(t, `trap 'echo told; wait' TERM; $APP -take fd:3; wait`, "--listen", "web=127.0.0.1:0", "--stop-group")
	s.ready(1)
	s.signal(unix.SIGTERM)
	if status := s.wait(); status != 0 || s.said("processes left behind") {
		t.Errorf("status %d", status)
	}
}

// What ignores the stop signal is killed at the deadline, wherever it has gone.
func TestWhatIsLeftBehindIsKilledAtTheDeadline(t *testing.T) {
	out := t.TempDir() + "/pid"
	s := wrapped(t, `(trap "" TERM; exec setsid sh -c 'echo $$ >`+out+`; exec sleep 1000') & exec $APP -take fd:3`, "--listen", "web=127.0.0.1:0", "--drain-timeout", "500ms")
	s.ready(1)
	s.upgrade(2)
	pid := leftBehind(s, 1)
	s.awaitOf("generation ended", 1)
	if unix.Kill(pid, 0) != unix.ESRCH {
		t.Errorf("process %d of the ended generation is there", pid)
	}
	if e := s.awaitOf("gave up draining, killing", 1); !strings.Contains(e.Why, strconv.Itoa(pid)) {
		t.Errorf("why: %s", e.Why)
	}
	s.signal(unix.SIGTERM)
	if status := s.wait(); status != 137 {
		t.Errorf("status %d", status)
	}
	if text, err := os.ReadFile(out); err == nil {
		if last, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && unix.Kill(last, 0) != unix.ESRCH {
			t.Errorf("process %d is there after the end of grace", last)
		}
	}
}

// A candidate that fails, and a readiness command that hangs, leave nothing behind either.
func TestFailedCandidateLeavesNothingBehind(t *testing.T) {
	dir := t.TempDir()
	hang := "test -e " + dir + "/good && exit 0; setsid sleep 4711 & wait # {pid}"
	write(t, dir, "good", "", 0o644)
	s := wrapped(t, `setsid sleep 4712 & $APP -take fd:3`, "--listen", "web=127.0.0.1:0", "--ready", "cmd:"+hang, "--ready-timeout", "2s")
	s.ready(1)
	if err := os.Remove(dir + "/good"); err != nil {
		t.Fatal(err)
	}
	s.signal(unix.SIGHUP)
	s.awaitMessage("upgrade failed")
	s.awaitOf("generation ended", 2)
	if pids := running(t, "sleep\x004711\x00"); len(pids) > 0 {
		t.Errorf("of the readiness command there is still %v", pids)
	}
	if pids := running(t, "sleep\x004712\x00"); len(pids) != 1 {
		t.Errorf("of one generation there is %v", pids)
	}
	s.stop()
}

func running(t *testing.T, command string) (pids []int) {
	t.Helper()
	all, err := childproc.Everybody()
	if err != nil {
		t.Fatal(err)
	}
	for _, pid := range all {
		if text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline"); err == nil && string(text) == command {
			pids = append(pids, pid)
		}
	}
	return pids
}
