//go:build linux

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/gracerun/grace/cmd/load"
	"github.com/gracerun/grace/internal/freeport"
	"github.com/gracerun/grace/test/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.Run(m.Run)) }

// upgradesEach is how often each combination is upgraded, one upgrade right
// after the other.
const upgradesEach = 50

func TestUpgradeUnderEveryKindOfLoad(t *testing.T) {
	s := harness.Start(t, "--listen", "web=127.0.0.1:0", "--", harness.AppBinary())
	addr := s.Address("")
	s.AwaitReady(1)
	harness.UnderLoad(t, load.Config{Addr: addr, Clients: harness.EveryKind}, func() {
		s.Upgrades(upgradesEach)
		s.AwaitGeneration("generation ended", upgradesEach)
		if body, want := harness.Get(t, addr, "/"), fmt.Sprintf("Hello from generation %d.", upgradesEach+1); !strings.Contains(body, want) {
			t.Errorf("got %q, and not %q", body, want)
		}
	})
	s.Stop()
}

func TestUpgradeWithEachDialect(t *testing.T) {
	for _, test := range []struct {
		dialect string
		app     []string
	}{
		{"systemd", []string{"-take", "systemd"}},
		{"server-starter", []string{"-take", "server-starter"}},
		{"nginx", []string{"-take", "nginx"}},
		{"einhorn", []string{"-take", "einhorn"}},
		{"php-fpm", []string{"-take", "php-fpm", "-addr", "ADDR"}},
		{"tableflip", []string{"-take", "tableflip", "-addr", "ADDR"}},
		{"stdin", []string{"-take", "stdin"}},
		{"none", []string{"-take", "fd:{fd:web}"}},
		{"systemd,server-starter,nginx,einhorn", []string{"-take", "handoff", "-addr", "ADDR"}},
	} {
		t.Run(test.dialect, func(t *testing.T) {
			t.Parallel()
			addr := freeport.Address(t)
			arguments := []string{"--listen", "web=" + addr, "--dialect", test.dialect, "--", harness.AppBinary()}
			for _, arg := range test.app {
				arguments = append(arguments, strings.ReplaceAll(arg, "ADDR", addr))
			}
			s := harness.Start(t, arguments...)
			s.AwaitReady(1)
			harness.UnderLoad(t, load.Config{Addr: addr, Clients: map[load.Kind]int{load.NewConnection: 2, load.KeepAlivePost: 4}}, func() { s.Upgrades(upgradesEach) })
			s.Stop()
		})
	}
}

func TestUpgradeWithEachSocket(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "app.sock")
	name := fmt.Sprintf("@grace-test-%d", os.Getpid())
	for _, test := range []struct {
		listen, network string
		app             []string
		kind            load.Kind
	}{
		{"tcp4://127.0.0.1:0", "tcp4", nil, load.KeepAliveGet},
		{"tcp6://[::1]:0", "tcp6", nil, load.KeepAliveGet},
		{"tcp://:0", "tcp", nil, load.NewConnection},
		{"unix://" + path, "unix", []string{"-network", "unix", "-addr", path}, load.KeepAlivePost},
		{"unix://" + name, "unix", []string{"-network", "unix", "-addr", name}, load.NewConnection},
		{"127.0.0.1:0", "tcp", []string{"-serve", "echo"}, load.Echo},
		{"unix://" + path + ".echo", "unix", []string{"-serve", "echo", "-network", "unix", "-addr", path + ".echo"}, load.Echo},
		{"udp://127.0.0.1:0", "udp", []string{"-serve", "packets", "-network", "udp"}, load.Packet},
		{"unixgram://" + path + ".dgram", "unixgram", []string{"-serve", "packets", "-network", "unixgram", "-addr", path + ".dgram"}, load.Packet},
	} {
		t.Run(test.listen+" "+string(test.kind), func(t *testing.T) {
			t.Parallel()
			s := harness.Start(t, append([]string{"--listen", "web=" + test.listen, "--", harness.AppBinary()}, test.app...)...)
			addr := s.Address("web")
			s.AwaitReady(1)
			harness.UnderLoad(t, load.Config{Network: test.network, Addr: reachable(addr), Clients: map[load.Kind]int{test.kind: 4}}, func() { s.Upgrades(upgradesEach) })
			s.Stop()
			if strings.HasPrefix(addr, "/") {
				if _, err := os.Lstat(addr); !os.IsNotExist(err) {
					t.Errorf("%s was left behind: %v", addr, err)
				}
			}
		})
	}
}

// reachable is an address to connect to for one that listens everywhere.
func reachable(addr string) string {
	return strings.Replace(strings.Replace(addr, "[::]:", "127.0.0.1:", 1), "0.0.0.0:", "127.0.0.1:", 1)
}

func TestUpgradeWithEachReadiness(t *testing.T) {
	for name, test := range map[string]struct{ flags, app []string }{
		"auto":                {[]string{"--ready", "auto"}, []string{"-delay", "30ms"}},
		"auto, notified late": {[]string{"--ready", "auto"}, []string{"-notify", "40ms"}},
		"notify":              {[]string{"--ready", "notify"}, []string{"-notify", "20ms"}},
		"delay":               {[]string{"--ready", "delay", "--ready-delay", "60ms"}, nil},
		"http":                {[]string{"--ready", "http://ADDR/health"}, []string{"-healthy-after", "40ms"}},
		"cmd":                 {[]string{"--ready", "cmd:ls -l /proc/{pid}/fd | grep -q eventpoll"}, nil},
		"two instances":       {[]string{"--instances", "2"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr := freeport.Address(t)
			arguments := []string{"--listen", "web=" + addr}
			for _, flag := range test.flags {
				arguments = append(arguments, strings.ReplaceAll(flag, "ADDR", addr))
			}
			s := harness.Start(t, append(append(arguments, "--", harness.AppBinary()), test.app...)...)
			s.AwaitReady(1)
			harness.UnderLoad(t, load.Config{Addr: addr, Clients: map[load.Kind]int{load.NewConnection: 2, load.KeepAlivePost: 2}}, func() { s.Upgrades(upgradesEach) })
			s.Stop()
		})
	}
}

// A thousand upgrades, every other of which fails, leave grace as it was.
func TestNothingLeaksOverAThousandUpgrades(t *testing.T) {
	broken := filepath.Join(t.TempDir(), "broken")
	s := harness.Start(t, "--listen", "web=127.0.0.1:0", "--", harness.AppBinary(), "-fail", broken)
	addr := s.Address("")
	s.AwaitReady(1)
	s.Upgrade(2)
	s.AwaitGeneration("generation ended", 1)
	before := descriptorsBesideOneChild(s)
	rounds := 500
	if testing.Short() {
		rounds = 25
	}
	harness.UnderLoad(t, load.Config{Addr: addr, Clients: map[load.Kind]int{load.NewConnection: 1, load.KeepAliveGet: 1}}, func() {
		for g := 3; g < 3+2*rounds; g += 2 {
			s.FailOnce(broken, g)
			s.Upgrade(g + 1)
			s.AwaitGeneration("generation ended", g)
		}
	})
	s.AwaitGeneration("generation ended", 3+2*rounds-2)
	s.Await("the end of the last generation but one", func(e harness.Entry) bool {
		return e.Message == "generation ended" && e.Generation == 2*rounds
	})
	harness.Until(t, fmt.Sprintf("no more than the %d descriptors of the beginning", before), func() bool {
		return descriptorsBesideOneChild(s) <= before
	})
	s.Stop()
}

// descriptorsBesideOneChild counts grace's, once the others of its children are reaped.
func descriptorsBesideOneChild(s *harness.Grace) int {
	s.T.Helper()
	harness.Until(s.T, "one child, no zombie beside it", func() bool { return childrenOf(s) == 1 })
	entries, err := os.ReadDir("/proc/" + strconv.Itoa(s.PID()) + "/fd")
	if err != nil {
		s.T.Fatal(err)
	}
	return len(entries)
}

// children counts those of all threads, zombies too.
func childrenOf(s *harness.Grace) (n int) {
	s.T.Helper()
	threads, err := filepath.Glob("/proc/" + strconv.Itoa(s.PID()) + "/task/*/children")
	if err != nil {
		s.T.Fatal(err)
	}
	for _, file := range threads {
		list, err := os.ReadFile(file)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ESRCH) {
			s.T.Fatal(err)
		}
		n += len(strings.Fields(string(list)))
	}
	return n
}
