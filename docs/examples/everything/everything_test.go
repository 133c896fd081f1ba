//go:build linux

package main

import (
	"flag"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gracerun/grace/docs/examples/internal/events"
	"github.com/gracerun/grace/docs/examples/internal/supervised"
	"github.com/gracerun/grace/internal/freeport"
	"github.com/gracerun/grace/test/harness"
)

var upgrades = flag.Int("upgrades", 20, "how often the program is replaced")

// Clients of every kind go on while one generation replaces the other. They never retry, and nothing of theirs fails.
// Beside it stands what the keep-alive clients lose with http.Server.Shutdown.
func TestNothingIsLost(t *testing.T) {
	kept := everything(t)
	plain := plainFigures(t)
	t.Logf("%d keep-alive clients, %3d upgrades, drain:                %v", 2*keepers, *upgrades, kept)
	t.Logf("%d keep-alive clients, at least %d upgrades, http.Server.Shutdown: %v", 2*keepers, plainUpgrades, plain)
	if kept.failed > 0 || kept.reconnects < uint64(keepers**upgrades) {
		t.Errorf("keep-alive clients of drain: %d reconnects, %v", kept.reconnects, kept.first)
	}
	if plain.failed == 0 {
		t.Error("no request failed with Shutdown: these clients would not notice a loss")
	}
}

func everything(t *testing.T) figures {
	addr, rpc, folder := freeport.Address(t), freeport.Address(t), t.TempDir()
	app := []string{harness.Program("everything"), "-addr", addr, "-grpc", rpc, "-data", folder}
	g := supervised.Grace(t, append([]string{"--listen", addr, "--listen", rpc, "--"}, app...)...)

	followers := events.Follow(8, addr, "/events", "0")
	posts := startKeepAlive(t, addr)
	gets := startGets(t, addr)
	slow := startSlow(t, addr)
	multiplexed := startHTTP2(t, addr)
	sockets := startSockets(t, addr)
	calls := startGRPC(t, rpc)
	jobs := startJobs(t, addr, folder)

	settle := func(n int) {
		posts.settle(t)
		multiplexed.settle(t, n)
		sockets.settle(t, n)
		calls.settle(t, n)
	}
	settle(0)
	begun := time.Now()
	for n := range *upgrades {
		g.UpgradeNext()
		g.AwaitDrained()
		settle(n + 1)
	}
	t.Logf("%d upgrades in %v", *upgrades, time.Since(begun).Round(time.Second))

	kept := posts.stop()
	checkTally(t, "GET", gets.Stop())
	slowed := slow.Stop()
	checkTally(t, "slow requests", slowed)
	multiplexed.end(t)
	sockets.end(t)
	calls.end(t)
	jobs.finish(t)
	writeLast(t, addr)
	followers.Wait()
	g.Stop()

	checkSpan(t, slowed, g)
	j := readEntries(t, folder)
	multiplexed.check(t, *upgrades, j)
	sockets.check(t, *upgrades, j)
	calls.check(t, *upgrades, j)
	jobs.check(t, j)
	followers.Check(t, j.lines)
	return kept
}

// writeLast is for the followers, who wait for it.
func writeLast(t *testing.T, addr string) {
	t.Helper()
	response, err := http.Post("http://"+addr+"/entries", "text/plain", strings.NewReader(events.Last))
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
}
