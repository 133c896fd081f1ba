//go:build linux

package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/gracerun/grace/cmd/load"
	"github.com/gracerun/grace/internal/freeport"
)

// besideHeld starts an app that has a port of its own beside the socket that grace holds.
func besideHeld(t *testing.T, change func(*exec.Cmd), flags []string, more ...string) (s *supervised, web, own string) {
	t.Helper()
	need(t, "python3")
	program, err := filepath.Abs("testdata/servers/beside.py")
	if err != nil {
		t.Fatal(err)
	}
	own = freeport.Address(t)
	_, port, _ := net.SplitHostPort(own)
	arguments := append([]string{"--listen", "web=127.0.0.1:0"}, flags...)
	s = graceWith(t, change, append(append(arguments, "--", "python3", program, port), more...)...)
	s.ready(1)
	return s, s.address("web"), own
}

func TestPortBesideAHeldSocketIsCaptured(t *testing.T) {
	t.Parallel()
	s, web, own := besideHeld(t, func(*exec.Cmd) {}, nil)
	under(t, load.Config{Addr: own, Clients: map[load.Kind]int{load.NewConnection: 4}}, func() { s.upgrades(5) })
	for _, addr := range []string{web, own} {
		s.awaitOf("generation ended", 5)
		if body := ask(t, addr, "/"); body != "generation 6\n" {
			t.Errorf("%s answers %q", addr, body)
		}
	}
	s.stop()
}

// A version without the port of the one before is no failed one.
func TestPortBesideAHeldSocketMayGo(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "without")
	s, web, _ := besideHeld(t, func(*exec.Cmd) {}, []string{"--ready-delay", "10ms"}, file)
	touch(t, file)
	s.upgrade(2)
	s.awaitOf("generation ended", 1)
	if body := ask(t, web, "/"); body != "generation 2\n" {
		t.Errorf("it answers %q", body)
	}
	s.stop()
}

// Where capturing would cost the app a right it is not done unasked, and the failure names the port and the flag.
func TestPortBesideAHeldSocketIsNamed(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change func(*exec.Cmd)
		flags  []string
	}{
		"nobody":        {asNobody, nil},
		"--capture off": {func(*exec.Cmd) {}, []string{"--capture", "off"}},
	} {
		t.Run(name, func(t *testing.T) {
			s, _, own := besideHeld(t, test.change, test.flags)
			s.signal(syscall.SIGHUP)
			failed := s.awaitMessage("upgrade failed")
			for _, want := range []string{own, "--capture on", "--listen"} {
				if !strings.Contains(failed.Why, want) {
					t.Errorf("the reason does not say %q: %s", want, failed.Why)
				}
			}
			s.stop()
		})
	}
}

func TestPortInUseOfACapturedAppNamesItsHolder(t *testing.T) {
	t.Parallel()
	addr := freeport.Address(t)
	holder := grace(t, "--listen", "web="+addr, "--", appBinary)
	holder.ready(1)
	for name, second := range map[string]*supervised{
		"captured": grace(t, "--", appBinary, "-addr", addr),
		"steered":  grace(t, "--listen", addr+"?steer=true", "--", appBinary),
	} {
		if status := second.wait(); status == 0 {
			t.Errorf("%s: status 0", name)
		}
		<-second.drained
		for _, want := range []string{addr, strconv.Itoa(holder.cmd.Process.Pid), "root", "grace", "--evict"} {
			if !strings.Contains(second.output(), want) {
				t.Errorf("%s: it does not say %q: %s", name, want, second.output())
			}
		}
	}
	third := grace(t, "--evict", "--", appBinary, "-addr", addr)
	third.ready(1)
	if status := holder.wait(); status != 0 {
		t.Errorf("the evicted grace ended with %d", status)
	}
	third.stop()
}

// The app of a grace that was killed shares its address with anybody of the same user who wants to.
func TestSteeredSocketBesideAnOrphan(t *testing.T) {
	t.Parallel()
	addr := freeport.Address(t)
	inPlace := func(c *exec.Cmd) { c.Env = append(os.Environ(), "RUNTIME_DIRECTORY="+worldFolder(t)) } // it leaves its sockets behind
	killed := graceWith(t, inPlace, "--listen", "web="+addr+"?steer=true", "--", appBinary)
	killed.ready(1)
	orphan := killed.awaitMessage("instance started").PID
	killed.signal(syscall.SIGKILL)
	killed.wait()
	second := grace(t, "--listen", addr+"?steer=true", "--", appBinary)
	if status := second.wait(); status != 1 {
		t.Errorf("status %d", status)
	}
	<-second.drained
	for _, want := range []string{addr, strconv.Itoa(orphan), "--evict"} {
		if !strings.Contains(second.output(), want) {
			t.Errorf("it does not say %q: %s", want, second.output())
		}
	}
	third := grace(t, "--listen", "web="+addr+"?steer=true", "--evict", "--", appBinary)
	third.ready(1)
	checkGone(t, orphan)
	third.stop()
}
