package capture

import (
	"crypto/rand"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/gracerun/grace/internal/freeport"
	"github.com/gracerun/grace/test/harness"
)

// TestNewVersionMayListenElsewhere, or at fewer addresses, or more: one that only the old version has is served until that has drained.
func TestNewVersionMayListenElsewhere(t *testing.T) {
	for name, of := range map[string]func(a, b string) (before, after []string){
		"another": func(a, b string) (before, after []string) { return []string{a}, []string{b} },
		"fewer":   func(a, b string) (before, after []string) { return []string{a, b}, []string{a} },
		"more":    func(a, b string) (before, after []string) { return []string{a}, []string{a, b} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			before, after := of(freeport.Address(t), freeport.Address(t))
			listenElsewhere(t, before, after)
		})
	}
}

func listenElsewhere(t *testing.T, before, after []string) {
	dir, name := t.TempDir(), "elsewhere-"+strings.ToLower(rand.Text())
	program, _ := harness.AppScript(t, dir)
	arguments := func(addresses []string) { harness.Write(t, dir, "arguments", "-notify 0s -addr "+addresses[0], 0o600) }
	arguments(before)
	s := harness.Start(t, "--name", name, "--settle", "50ms", "--", program)
	s.AwaitReady(1)
	openMore(t, before)
	request := harness.BeginRequest(t, before[0])
	arguments(after)
	s.Upgrade(2)
	s.AwaitGeneration("generation draining", 1)
	openMore(t, after)
	c, _ := harness.Client(t, name)
	for _, addr := range append(before, after...) {
		by := "1"
		if slices.Contains(after, addr) {
			by = "2"
		}
		if body := harness.Get(t, addr, "/"); body != "Hello from generation "+by+".\n" {
			t.Errorf("%s answers %q", addr, body)
		}
		listed := false
		for _, l := range harness.Status(t, c).Listeners {
			listed = listed || l.Address == addr && l.Generation == int(by[0]-'0')
		}
		if !listed {
			t.Errorf("the status has no listener of generation %s on %s", by, addr)
		}
	}
	request.Finish()
	if e := s.AwaitGeneration("generation ended", 1); e.Why != "drained" {
		t.Errorf("generation 1 ended: %s", e.Why)
	}
	for _, addr := range before {
		if slices.Contains(after, addr) {
			continue
		}
		harness.Until(t, "nobody listens at "+addr, func() bool { // grace gives its duplicate up right after
			conn, err := net.Dial("tcp", addr)
			if err == nil {
				conn.Close()
			}
			return err != nil
		})
	}
	s.Stop()
}

// openMore has the app that listens at the first address listen at the others.
func openMore(t *testing.T, addresses []string) {
	t.Helper()
	for _, addr := range addresses[1:] {
		if body := harness.Get(t, addresses[0], "/listen?at="+addr); body != "" {
			t.Fatal(body)
		}
	}
}
