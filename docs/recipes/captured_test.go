package recipes

import (
	"errors"
	"maps"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/gracerun/grace/cmd/load"
	"github.com/gracerun/grace/internal/freeport"
	"github.com/gracerun/grace/internal/redis"
	"github.com/gracerun/grace/test/harness"
)

// capturedUpgrades are few: the pages' servers get more of them in the tests of grace itself.
const capturedUpgrades = 3

// TestPagesWithoutListen runs the pages' commands under which servers bind by themselves.
func TestPagesWithoutListen(t *testing.T) {
	for _, name := range slices.Sorted(maps.Keys(recipes)) {
		page := readPage(t, name, nil)
		if _, ok := page.commands["captured"]; !ok && recipes[name].alone {
			t.Errorf("%s.md has no command", name)
		}
		testOwnSockets(t, name, page, "captured")
	}
}

// TestPagesWithSteer runs those under which grace binds a socket for each generation.
func TestPagesWithSteer(t *testing.T) {
	for _, name := range slices.Sorted(maps.Keys(recipes)) {
		testOwnSockets(t, name, readPage(t, name, nil), "steered")
	}
}

// TestPagesOneInstanceAtATime runs those under which several instances are replaced one by one.
func TestPagesOneInstanceAtATime(t *testing.T) {
	for _, name := range slices.Sorted(maps.Keys(recipes)) {
		testOwnSockets(t, name, readPage(t, name, nil), "rolling")
	}
}

func testOwnSockets(t *testing.T, name string, page page, command string) {
	if _, ok := page.commands[command]; !ok || recipes[name].leftOut() {
		return
	}
	t.Run(name, func(t *testing.T) {
		recipes[name].require(t, name)
		t.Parallel()
		server := recipes[name].testOwnSockets(t, name, command)
		if command == "rolling" {
			checkRolling(t, server, rollingInstances)
		}
	})
}

func (r recipe) testOwnSockets(t *testing.T, name, command string) *harness.Grace {
	front, back := port(freeport.Address(t)), port(freeport.Address(t))
	p := readPage(t, name, map[string]string{"8080": front, "6379": front, "9000": back})
	dir := p.write(t)
	r.build(t, dir)
	link(t, dir, append(r.needs, harness.GraceBinary()))
	harness.ServeBackend(t, "127.0.0.1:"+back)

	server := start(t, dir, p.commands[command], "GRACE_SETTLE=50ms")
	server.AwaitReady(1)
	finish := r.loadCaptured(t, "127.0.0.1:"+front)
	for range capturedUpgrades {
		server.UpgradeNext()
		server.AwaitDrained()
	}
	if broken := p.paths(dir); r.alone && r.breaks != "" {
		refuse(server, filepath.Join(dir, r.breaks))
	} else if len(broken) > 0 {
		refuse(server, broken...)
	}
	if err := finish(); err != nil {
		t.Error(err)
	}
	server.Stop()
	checkNoListener(t, front)
	return server
}

// rollingInstances is what the pages' commands say.
const rollingInstances = 4

// checkRolling fails if fewer instances were ready than there are to be, from when they were, or if more than one was there beside them.
func checkRolling(t *testing.T, g *harness.Grace, instances int) {
	t.Helper()
	running, ready, all := 0, map[int]bool{}, false
	for _, e := range g.Entries() {
		switch e.Message {
		case "instance started":
			running++
		case "instance ready":
			ready[e.Instance] = true
		case "instance ended":
			running--
			delete(ready, e.Instance)
		case "stopping":
			return
		}
		all = all || len(ready) == instances
		if running > instances+1 || all && len(ready) < instances {
			t.Fatalf("%d instances run, and %d of them are ready, when %v", running, len(ready), e)
		}
	}
	t.Error("grace did not say that it stops")
}

// loadCaptured sends load of which nothing may fail.
func (r recipe) loadCaptured(t *testing.T, addr string) (finish func() error) {
	t.Helper()
	if r.another != nil {
		return r.another(addr)
	}
	clients := fresh // a kept connection that is never idle takes all of --drain-timeout
	if r.alone {
		clients = r.clients
	}
	return loadHTTP(t, load.Config{Addr: addr, Clients: clients, Answer: r.answer})
}

func loadHTTP(t *testing.T, config load.Config) (finish func() error) {
	t.Helper()
	config.ThinkMax = 10 * time.Millisecond
	l, err := load.Start(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	return func() error {
		tally := l.Stop()
		if tally.Failures() > 0 || tally.Requests() == 0 {
			return errors.New(tally.String())
		}
		t.Logf("none of %d requests failed", tally.Requests())
		return nil
	}
}

func loadRedis(addr string) (finish func() error) {
	l := redis.Start(addr, 1, 1, 50)
	return func() error {
		done, err := l.Stop()
		if err == nil && done == 0 {
			return errors.New("no command was sent")
		}
		return err
	}
}
