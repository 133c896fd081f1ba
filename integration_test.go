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
)

// upgradesEach is how often each combination is upgraded, one upgrade right
// after the other.
const upgradesEach = 50

func TestUpgradeUnderEveryKindOfLoad(t *testing.T) {
	s := grace(t, "--listen", "web=127.0.0.1:0", "--", appBinary)
	addr := s.address("")
	s.ready(1)
	under(t, load.Config{Addr: addr, Clients: everyKind}, func() {
		s.upgrades(upgradesEach)
		s.awaitOf("generation ended", upgradesEach)
		if body, want := ask(t, addr, "/"), fmt.Sprintf("Hello from generation %d.", upgradesEach+1); !strings.Contains(body, want) {
			t.Errorf("got %q, and not %q", body, want)
		}
	})
	s.stop()
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
			arguments := []string{"--listen", "web=" + addr, "--dialect", test.dialect, "--", appBinary}
			for _, arg := range test.app {
				arguments = append(arguments, strings.ReplaceAll(arg, "ADDR", addr))
			}
			s := grace(t, arguments...)
			s.ready(1)
			under(t, load.Config{Addr: addr, Clients: map[load.Kind]int{load.NewConnection: 2, load.KeepAlivePost: 4}}, func() { s.upgrades(upgradesEach) })
			s.stop()
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
			s := grace(t, append([]string{"--listen", "web=" + test.listen, "--", appBinary}, test.app...)...)
			addr := s.address("web")
			s.ready(1)
			under(t, load.Config{Network: test.network, Addr: reachable(addr), Clients: map[load.Kind]int{test.kind: 4}}, func() { s.upgrades(upgradesEach) })
			s.stop()
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
			s := grace(t, append(append(arguments, "--", appBinary), test.app...)...)
			s.ready(1)
			under(t, load.Config{Addr: addr, Clients: map[load.Kind]int{load.NewConnection: 2, load.KeepAlivePost: 2}}, func() { s.upgrades(upgradesEach) })
			s.stop()
		})
	}
}

// A thousand upgrades, every other of which fails, leave grace as it was.
func TestNothingLeaksOverAThousandUpgrades(t *testing.T) {
	broken := filepath.Join(t.TempDir(), "broken")
	s := grace(t, "--listen", "web=127.0.0.1:0", "--", appBinary, "-fail", broken)
	addr := s.address("")
	s.ready(1)
	s.upgrade(2)
	s.awaitOf("generation ended", 1)
	before := descriptorsBesideOneChild(s)
	rounds := 500
	if testing.Short() {
		rounds = 25
	}
	under(t, load.Config{Addr: addr, Clients: map[load.Kind]int{load.NewConnection: 1, load.KeepAliveGet: 1}}, func() {
		for g := 3; g < 3+2*rounds; g += 2 {
			s.failOnce(broken, g)
			s.upgrade(g + 1)
			s.awaitOf("generation ended", g)
		}
	})
	s.awaitOf("generation ended", 3+2*rounds-2)
	s.await("the end of the last generation but one", func(e entry) bool {
		return e.Message == "generation ended" && e.Generation == 2*rounds
	})
	until(t, fmt.Sprintf("no more than the %d descriptors of the beginning", before), func() bool {
		return descriptorsBesideOneChild(s) <= before
	})
	s.stop()
}

func (s *supervised) failOnce(broken string, generation int) {
	s.t.Helper()
	if err := os.WriteFile(broken, nil, 0o600); err != nil {
		s.t.Fatal(err)
	}
	s.signal(syscall.SIGHUP)
	s.awaitOf("upgrade failed", generation)
	if err := os.Remove(broken); err != nil {
		s.t.Fatal(err)
	}
}

// descriptorsBesideOneChild counts grace's, once the others of its children are reaped.
func descriptorsBesideOneChild(s *supervised) int {
	s.t.Helper()
	until(s.t, "one child, no zombie beside it", func() bool { return childrenOf(s) == 1 })
	entries, err := os.ReadDir("/proc/" + strconv.Itoa(s.cmd.Process.Pid) + "/fd")
	if err != nil {
		s.t.Fatal(err)
	}
	return len(entries)
}

// children counts those of all threads, zombies too.
func childrenOf(s *supervised) (n int) {
	s.t.Helper()
	threads, err := filepath.Glob("/proc/" + strconv.Itoa(s.cmd.Process.Pid) + "/task/*/children")
	if err != nil {
		s.t.Fatal(err)
	}
	for _, file := range threads {
		list, err := os.ReadFile(file)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ESRCH) {
			s.t.Fatal(err)
		}
		n += len(strings.Fields(string(list)))
	}
	return n
}
