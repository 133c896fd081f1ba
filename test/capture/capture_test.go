package capture

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/gracerun/grace/cmd/load"
	"github.com/gracerun/grace/internal/freeport"
	"github.com/gracerun/grace/test/harness"
)

// capturedUpgrades is how often each captured server is upgraded.
const capturedUpgrades = 20

func TestCapturedServersLoseNothing(t *testing.T) {
	for name, test := range map[string]struct {
		command string
		clients map[load.Kind]int
	}{
		"static Go":                      {harness.AppBinary() + " -addr ADDR", harness.EveryKind},
		"python, which dies of its TERM": {"python3 -m http.server PORT --bind 127.0.0.1", map[load.Kind]int{load.NewConnection: 4}},
	} {
		t.Run(name, func(t *testing.T) {
			addr := freeport.Address(t)
			command := strings.NewReplacer("ADDR", addr, "PORT", addr[strings.LastIndex(addr, ":")+1:]).Replace(test.command)
			s := harness.Start(t, append([]string{"--settle", "50ms", "--"}, strings.Fields(command)...)...)
			s.AwaitReady(1)
			harness.UnderLoad(t, load.Config{Addr: addr, Clients: test.clients}, func() { s.Upgrades(capturedUpgrades) })
			s.Stop()
		})
	}
}

func TestStartSaysWhatIsServed(t *testing.T) {
	addr := freeport.Address(t)
	for name, test := range map[string]struct{ flags, app []string }{
		"held":     {[]string{"--listen", "web=" + addr}, nil},
		"captured": {nil, []string{"-addr", addr}},
	} {
		t.Run(name, func(t *testing.T) {
			s := harness.Start(t, slices.Concat([]string{"--name", "front"}, test.flags, []string{"--", harness.AppBinary()}, test.app)...)
			e := s.AwaitMessage("serving")
			if want := fmt.Sprintf(`"%s":["tcp %s"]`, name, addr); e.Name != "front" || !strings.Contains(e.Text, want) {
				t.Errorf("the log lacks %s: %s", want, e.Text)
			}
			s.Stop()
		})
	}
}

func TestCapturesForAnyUser(t *testing.T) {
	for name, test := range map[string]struct {
		change     func(*exec.Cmd)
		flags      []string
		noNewPrivs string
	}{
		"root":                    {func(*exec.Cmd) {}, nil, "0"},
		"root, with no-new-privs": {func(*exec.Cmd) {}, []string{"--no-new-privs", "on"}, "1"},
		"root, the app as nobody": {func(*exec.Cmd) {}, []string{"--user", "nobody"}, "0"},
		"nobody, who needs it":    {harness.AsNobody, nil, "1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr := freeport.Address(t)
			s := harness.StartWith(t, test.change, append(append([]string{"--settle", "50ms"}, test.flags...), "--", harness.AppBinary(), "-addr", addr)...)
			s.AwaitReady(1)
			status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.AwaitMessage("instance started").PID))
			if err != nil || !strings.Contains(string(status), "\nNoNewPrivs:\t"+test.noNewPrivs+"\n") || !strings.Contains(string(status), "\nSeccomp:\t2\n") {
				t.Errorf("the app's status: %s, %v", status, err)
			}
			harness.UnderLoad(t, load.Config{Addr: addr, Clients: harness.EveryKind}, func() { s.Upgrades(capturedUpgrades) })
			s.Stop()
		})
	}
}

func TestProbesReachTheCandidateOnly(t *testing.T) {
	for name, ready := range map[string]string{"by HTTP": "http://ADDR/health", "by TCP": "tcp"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr := freeport.Address(t)
			s := harness.Start(t, "--settle", "50ms", "--ready", strings.ReplaceAll(ready, "ADDR", addr), "--", harness.AppBinary(), "-addr", addr, "-healthy-after", "100ms")
			s.AwaitReady(1)
			harness.UnderLoad(t, load.Config{Addr: addr, Clients: harness.EveryKind}, func() { s.Upgrades(5) })
			for _, e := range s.Entries() {
				if name == "by HTTP" && e.Message == "instance ready" && e.Took < 100 {
					t.Errorf("instance %d was taken for ready after %v ms, by another one's answer", e.Instance, e.Took)
				}
			}
			s.Stop()
		})
	}
}

// An app that ends well is told to at once, and lets its clients go: no wait for those that never pause.
func TestBusyClientsDoNotHoldAnAppThatEndsWell(t *testing.T) {
	t.Parallel()
	addr := freeport.Address(t)
	s := harness.Start(t, "--settle", "50ms", "--empty", "0s", "--drain-timeout", "10m", "--max-draining", "1", "--", harness.AppBinary(), "-addr", addr)
	s.AwaitReady(1)
	harness.UnderLoad(t, load.Config{Addr: addr, Clients: harness.EveryKind}, func() {
		s.Upgrades(3)
		s.AwaitGeneration("generation ended", 3)
	})
	s.Stop()
}

// What the dead version had in its hands is lost, as with any crash.
func TestUpgradeIsUndone(t *testing.T) {
	t.Parallel()
	addr, dir := freeport.Address(t), t.TempDir()
	s := harness.Start(t, "--settle", "30s", "--chdir", dir, "--", "sh", "-c", crashing(`"$0" -addr `+addr), harness.AppBinary())
	s.AwaitReady(1)
	harness.Touch(t, filepath.Join(dir, "later"))
	s.Upgrade(2)
	harness.Touch(t, filepath.Join(dir, "crash"))
	s.AwaitGeneration("upgrade undone, generation 1 serves again", 2)
	harness.UnderLoad(t, load.Config{Addr: addr, Clients: harness.EveryKind}, func() { s.AwaitGeneration("generation ended", 2) })
	s.Stop()
}

// crashing is an app of which later versions, once the file later is there, die when crash is.
func crashing(command string) string {
	return fmt.Sprintf(`test -e later && { %s & until test -e crash; do sleep 0.01; done; kill -9 $!; exit 3; }; exec %[1]s`, command)
}

func TestSteeredListenersLoseNothing(t *testing.T) {
	for name, test := range map[string]struct{ flags, app []string }{
		"one instance":                        {nil, nil},
		"three instances":                     {[]string{"--instances", "3"}, nil},
		"an app that shuts its listener down": {nil, []string{"-shutdown-listener"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			arguments := append([]string{"--listen", "web=127.0.0.1:0?steer=true", "--settle", "50ms", "--drain-timeout", "20s"}, test.flags...)
			s := harness.Start(t, append(append(arguments, "--", harness.AppBinary()), test.app...)...)
			addr := s.Address("web")
			s.AwaitReady(1)
			clients := harness.EveryKind
			if test.app != nil { // it does not end its connections well
				clients = map[load.Kind]int{load.NewConnection: 4}
			}
			harness.UnderLoad(t, load.Config{Addr: addr, Clients: clients}, func() { s.Upgrades(capturedUpgrades) })
			s.Stop()
		})
	}
}

// withoutDuplicates is what container engines deny where CAP_SYS_PTRACE is not granted.
func withoutDuplicates(spec harness.Spec) {
	harness.WithHost(spec)
	spec.At("linux")["seccomp"] = harness.Spec{
		"defaultAction": "SCMP_ACT_ALLOW",
		"syscalls":      []harness.Spec{{"names": []string{"pidfd_getfd"}, "action": "SCMP_ACT_ERRNO", "errnoRet": int(syscall.EPERM)}},
	}
}

func TestContainerCaptures(t *testing.T) {
	for name, test := range map[string]struct {
		change func(harness.Spec)
		fresh  bool
	}{
		"root":                        {harness.WithHost, false},
		"root, no duplicates":         {withoutDuplicates, true},
		"anybody":                     {func(spec harness.Spec) { harness.WithHost(spec); harness.AsAnybody(spec) }, false},
		"anybody, without duplicates": {func(spec harness.Spec) { withoutDuplicates(spec); harness.AsAnybody(spec) }, true},
	} {
		for _, app := range []struct {
			command string
			clients map[load.Kind]int
		}{
			{"/app -addr ADDR", harness.EveryKind},
			{"/usr/bin/python3 -m http.server PORT --bind 127.0.0.1 --directory /proc/self/task", map[load.Kind]int{load.NewConnection: 4}},
		} {
			t.Run(name+" "+app.command[:4], func(t *testing.T) {
				addr := freeport.Address(t)
				command := strings.NewReplacer("ADDR", addr, "PORT", addr[strings.LastIndex(addr, ":")+1:]).Replace(app.command)
				c := harness.StartContainer(t, test.change, append([]string{"--settle", "50ms", "--"}, strings.Fields(command)...)...)
				c.AwaitReady(1)
				harness.UnderLoad(t, load.Config{Addr: addr, Clients: app.clients}, func() { c.Upgrades(capturedUpgrades) })
				if fresh := c.Said("capturing with grace's own sockets"); fresh != test.fresh {
					t.Errorf("it captures with sockets of grace's own: %v", fresh)
				}
				c.Do("kill", c.Name, "TERM")
				c.Ends(0)
			})
		}
	}
}
