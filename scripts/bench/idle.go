package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// A process may have 20,000 descriptors in many places, so connections are spread over several at both ends. The
// kernel does not share them out evenly among the instances.
const (
	connections = 20_000
	instances   = 4
	clients     = 4
	idleTime    = 15 * time.Second
	every       = 5 * time.Second // how often each connection is used
)

// idle looks at grace itself while its app has nothing to do, while it has a lot to do, and after upgrades.
func (b bench) idle() {
	s := b.supervise([]string{"--instances", strconv.Itoa(instances)})
	defer s.stop()
	t := newTable(fmt.Sprintf("grace with %d instances of the app", instances),
		"\tlasted\trequests\twake-ups of grace\tof the app\tgrace's memory in MB: resident\tproportional\tprivate")
	defer t.end()
	s.look(t)
	s.upgradeRepeatedly(t)
	b.scrapeRepeatedly(t)
}

// look takes three equal looks at grace: without clients, while they come, and while they stay.
func (s *supervised) look(t table) {
	s.observe(t, "no connection", func() int { time.Sleep(idleTime); return 0 })
	var all crowd
	defer func() { all.leave() }()
	s.observe(t, fmt.Sprintf("opening %d connections", connections), func() int {
		all = s.invite(connections, every)
		return connections
	})
	s.observe(t, fmt.Sprintf("%d connections in use", connections), func() int {
		before := all.requests()
		time.Sleep(idleTime)
		return all.requests() - before
	})
}

const memoryUpgrades = 50

func (s *supervised) upgradeRepeatedly(t table) {
	s.observe(t, fmt.Sprintf("%d upgrades", memoryUpgrades), func() int {
		for range memoryUpgrades {
			s.hangUp()
			s.awaitReady()
		}
		s.awaitEnd()
		return 0
	})
}

const scrapes = 1000

// scrapeRepeatedly is of a grace process of its own, which tells its metrics.
func (b bench) scrapeRepeatedly(t table) {
	dir := must(os.MkdirTemp("", "grace-bench-"))
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "metrics")
	s := b.supervise([]string{"--instances", strconv.Itoa(instances), "--metrics", "unix://" + path})
	defer s.stop()
	client := clientOf(path)
	s.observe(t, fmt.Sprintf("another one, asked for metrics %d times", scrapes), func() int {
		for range scrapes {
			scrape(client)
		}
		return 0
	})
}

// clientOf asks at a unix socket.
func clientOf(path string) http.Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}
	return http.Client{Transport: &http.Transport{DialContext: dial}}
}

func scrape(client http.Client) string {
	response := must(client.Get("http://grace/metrics"))
	defer response.Body.Close()
	return string(must(io.ReadAll(response.Body)))
}

// observe counts the wake-ups while something happens, and takes grace's memory after it.
func (s *supervised) observe(t table, what string, happen func() (count int)) {
	grace, app := s.Cmd.Process.Pid, s.pids
	graceBefore, appBefore, begun := wakeups(grace), wakeups(app...), time.Now()
	count := happen()
	took, graceAfter := time.Since(begun), wakeups(grace)
	ofApp := "-" // other processes by now
	_ = attempt(func() { ofApp = strconv.Itoa(since(appBefore, wakeups(app...))) })
	m := memoryOf(grace)
	t.line("%s\t%.1f s\t%d\t%d\t%s\t%.1f\t%.1f\t%.1f", what, took.Seconds(), count, since(graceBefore, graceAfter), ofApp,
		m.resident, m.shared, m.private)
}
