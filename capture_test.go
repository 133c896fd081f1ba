//go:build linux

package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/gracerun/grace/cmd/load"
)

// capturedUpgrades is how often each captured server is upgraded.
const capturedUpgrades = 20

func TestCapturedServersLoseNothing(t *testing.T) {
	for name, test := range map[string]struct {
		command string
		clients map[load.Kind]int
	}{
		"static Go":                      {appBinary + " -addr ADDR", everyKind},
		"python, which dies of its TERM": {"python3 -m http.server PORT --bind 127.0.0.1", map[load.Kind]int{load.NewConnection: 4}},
	} {
		t.Run(name, func(t *testing.T) {
			addr := freeAddress(t)
			command := strings.NewReplacer("ADDR", addr, "PORT", addr[strings.LastIndex(addr, ":")+1:]).Replace(test.command)
			s := grace(t, append([]string{"--settle", "50ms", "--"}, strings.Fields(command)...)...)
			s.ready(1)
			under(t, load.Config{Addr: addr, Clients: test.clients}, func() { s.upgrades(capturedUpgrades) })
			s.stop()
		})
	}
}

func TestProbesReachTheCandidateOnly(t *testing.T) {
	for name, ready := range map[string]string{"by HTTP": "http://ADDR/health", "by TCP": "tcp"} {
		t.Run(name, func(t *testing.T) {
			addr := freeAddress(t)
			s := grace(t, "--settle", "50ms", "--ready", strings.ReplaceAll(ready, "ADDR", addr), "--", appBinary, "-addr", addr, "-healthy-after", "100ms")
			s.ready(1)
			under(t, load.Config{Addr: addr, Clients: everyKind}, func() { s.upgrades(5) })
			for _, e := range s.entries() {
				if name == "by HTTP" && e.Message == "instance ready" && e.Took < 100 {
					t.Errorf("instance %d was taken for ready after %v ms, by another one's answer", e.Instance, e.Took)
				}
			}
			s.stop()
		})
	}
}

// What the dead version had in its hands is lost, as with any crash.
func TestUpgradeIsUndone(t *testing.T) {
	addr, crash := freeAddress(t), filepath.Join(t.TempDir(), "crash")
	script := `test -e ` + crash + ` && { "$0" -addr ` + addr + ` & sleep 1; kill -9 $!; exit 3; }; exec "$0" -addr ` + addr
	s := grace(t, "--settle", "30s", "--", "sh", "-c", script, appBinary)
	s.ready(1)
	if err := os.WriteFile(crash, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s.signal(syscall.SIGHUP)
	s.awaitOf("upgrade undone, generation 1 serves again", 2)
	under(t, load.Config{Addr: addr, Clients: everyKind}, func() { s.awaitOf("generation ended", 2) })
	s.stop()
}

func TestSteeredListenersLoseNothing(t *testing.T) {
	for name, test := range map[string]struct{ flags, app []string }{
		"one instance":                        {nil, nil},
		"three instances":                     {[]string{"--instances", "3"}, nil},
		"an app that shuts its listener down": {[]string{"--stop-signal", "TERM"}, []string{"-shutdown-listener"}},
	} {
		t.Run(name, func(t *testing.T) {
			arguments := append([]string{"--listen", "web=127.0.0.1:0?steer=true", "--settle", "50ms", "--drain-timeout", "2s"}, test.flags...)
			s := grace(t, append(append(arguments, "--", appBinary), test.app...)...)
			addr := s.address("web")
			s.ready(1)
			clients := everyKind
			if test.app != nil { // it does not end its connections well
				clients = map[load.Kind]int{load.NewConnection: 4}
			}
			under(t, load.Config{Addr: addr, Clients: clients}, func() { s.upgrades(capturedUpgrades) })
			s.stop()
		})
	}
}
