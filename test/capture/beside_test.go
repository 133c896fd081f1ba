package capture

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
	"github.com/gracerun/grace/test/harness"
)

// besideHeld starts an app that has a port of its own beside the socket that grace holds.
func besideHeld(t *testing.T, change func(*exec.Cmd), flags []string, more ...string) (s *harness.Grace, web, own string) {
	t.Helper()
	harness.Need(t, "python3")
	program := harness.Testdata(t, "servers/beside.py")
	own = freeport.Address(t)
	_, port, _ := net.SplitHostPort(own)
	arguments := append([]string{"--listen", "web=127.0.0.1:0"}, flags...)
	s = harness.StartWith(t, change, append(append(arguments, "--", "python3", program, port), more...)...)
	s.AwaitReady(1)
	return s, s.Address("web"), own
}

func TestPortBesideAHeldSocketIsCaptured(t *testing.T) {
	t.Parallel()
	s, web, own := besideHeld(t, func(*exec.Cmd) {}, nil)
	harness.UnderLoad(t, load.Config{Addr: own, Clients: map[load.Kind]int{load.NewConnection: 4}}, func() { s.Upgrades(5) })
	for g := 1; g <= 5; g++ {
		s.AwaitGeneration("generation ended", g)
	}
	for _, addr := range []string{web, own} {
		if body := harness.Get(t, addr, "/"); body != "generation 6\n" {
			t.Errorf("%s answers %q", addr, body)
		}
	}
	s.Stop()
}

// A version without the port of the one before is no failed one.
func TestPortBesideAHeldSocketMayGo(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "without")
	s, web, _ := besideHeld(t, func(*exec.Cmd) {}, []string{"--ready-delay", "10ms"}, file)
	harness.Touch(t, file)
	s.Upgrade(2)
	s.AwaitGeneration("generation ended", 1)
	if body := harness.Get(t, web, "/"); body != "generation 2\n" {
		t.Errorf("it answers %q", body)
	}
	s.Stop()
}

// Where capturing would cost the app a right it is not done unasked, and the failure names the port and the flag.
func TestPortBesideAHeldSocketIsNamed(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change func(*exec.Cmd)
		flags  []string
	}{
		"nobody":        {harness.AsNobody, nil},
		"--capture off": {func(*exec.Cmd) {}, []string{"--capture", "off"}},
	} {
		t.Run(name, func(t *testing.T) {
			s, _, own := besideHeld(t, test.change, test.flags)
			s.Signal(syscall.SIGHUP)
			failed := s.AwaitMessage("upgrade failed")
			for _, want := range []string{own, "--capture on", "--listen"} {
				if !strings.Contains(failed.Why, want) {
					t.Errorf("the reason does not say %q: %s", want, failed.Why)
				}
			}
			s.Stop()
		})
	}
}

func TestPortInUseOfACapturedAppNamesItsHolder(t *testing.T) {
	t.Parallel()
	addr := freeport.Address(t)
	holder := harness.Start(t, "--listen", "web="+addr, "--", harness.AppBinary())
	holder.AwaitReady(1)
	for name, second := range map[string]*harness.Grace{
		"captured": harness.Start(t, "--", harness.AppBinary(), "-addr", addr),
		"steered":  harness.Start(t, "--listen", addr+"?steer=true", "--", harness.AppBinary()),
	} {
		if status := second.Wait(); status == 0 {
			t.Errorf("%s: status 0", name)
		}
		<-second.Ended
		for _, want := range []string{addr, strconv.Itoa(holder.PID()), "root", "grace", "--evict"} {
			if !strings.Contains(second.Output(), want) {
				t.Errorf("%s: it does not say %q: %s", name, want, second.Output())
			}
		}
	}
	third := harness.Start(t, "--evict", "--", harness.AppBinary(), "-addr", addr)
	third.AwaitReady(1)
	holder.Ends(0)
	third.Stop()
}

// The app of a grace process that was killed shares its address with anybody of the same user who wants to.
func TestSteeredSocketBesideAnOrphan(t *testing.T) {
	t.Parallel()
	addr := freeport.Address(t)
	inPlace := func(c *exec.Cmd) { c.Env = append(os.Environ(), "RUNTIME_DIRECTORY="+harness.WorldFolder(t)) } // it leaves its sockets behind
	killed := harness.StartWith(t, inPlace, "--listen", "web="+addr+"?steer=true", "--", harness.AppBinary())
	killed.AwaitReady(1)
	orphan := killed.AwaitMessage("instance started").PID
	killed.Signal(syscall.SIGKILL)
	killed.Wait()
	second := harness.Start(t, "--listen", addr+"?steer=true", "--", harness.AppBinary())
	second.Ends(1)
	for _, want := range []string{addr, strconv.Itoa(orphan), "--evict"} {
		if !strings.Contains(second.Output(), want) {
			t.Errorf("it does not say %q: %s", want, second.Output())
		}
	}
	third := harness.Start(t, "--listen", "web="+addr+"?steer=true", "--evict", "--", harness.AppBinary())
	third.AwaitReady(1)
	harness.CheckGone(t, orphan)
	third.Stop()
}
