package main

import (
	"context"
	"errors"
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
func (b bench) idle() (err error) {
	s, err := b.supervise([]string{"--instances", strconv.Itoa(instances)})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	t := newTable(fmt.Sprintf("grace with %d instances of the app", instances),
		"\tlasted\trequests\twake-ups of grace\tof the app\tgrace's memory in MB: resident\tproportional\tprivate")
	defer t.end()
	return errors.Join(s.look(t), s.upgradeRepeatedly(t), b.scrapeRepeatedly(t))
}

// look takes three equal looks at grace: without clients, while they come, and while they stay.
func (s *supervised) look(t table) (err error) {
	if err := s.observe(t, "no connection", func() (int, error) { time.Sleep(idleTime); return 0, nil }); err != nil {
		return err
	}
	var crowd []*client
	defer func() {
		for _, c := range crowd {
			err = errors.Join(err, c.leave())
		}
	}()
	if err := s.observe(t, fmt.Sprintf("opening %d connections", connections), func() (int, error) {
		var err error
		crowd, err = s.invite(connections, every)
		return connections, err
	}); err != nil {
		return err
	}
	return s.observe(t, fmt.Sprintf("%d connections in use", connections), func() (int, error) {
		before, err := requests(crowd)
		if err != nil {
			return 0, err
		}
		time.Sleep(idleTime)
		after, err := requests(crowd)
		return after - before, err
	})
}

const memoryUpgrades = 50

func (s *supervised) upgradeRepeatedly(t table) error {
	return s.observe(t, fmt.Sprintf("%d upgrades", memoryUpgrades), func() (int, error) {
		for range memoryUpgrades {
			if _, err := s.hangUp(); err != nil {
				return 0, err
			}
			if _, err := s.awaitReady(); err != nil {
				return 0, err
			}
		}
		_, err := s.await("generation ended", s.generation-1)
		return 0, err
	})
}

const scrapes = 1000

// scrapeRepeatedly is of a grace process of its own, which tells its metrics.
func (b bench) scrapeRepeatedly(t table) (err error) {
	dir, err := os.MkdirTemp("", "grace-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	path := filepath.Join(dir, "metrics")
	s, err := b.supervise([]string{"--instances", strconv.Itoa(instances), "--metrics", "unix://" + path})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}
	client := http.Client{Transport: &http.Transport{DialContext: dial}}
	return s.observe(t, fmt.Sprintf("another one, asked for metrics %d times", scrapes), func() (int, error) {
		for range scrapes {
			if err := scrape(&client); err != nil {
				return 0, err
			}
		}
		return 0, nil
	})
}

func scrape(client *http.Client) error {
	response, err := client.Get("http://grace/metrics")
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	return err
}

// observe counts the wake-ups while something happens, and takes grace's memory after it.
func (s *supervised) observe(t table, what string, happen func() (int, error)) error {
	grace, app := s.Cmd.Process.Pid, s.pids
	graceBefore, err := wakeups(grace)
	if err != nil {
		return err
	}
	appBefore, err := wakeups(app...)
	if err != nil {
		return err
	}
	begun := time.Now()
	count, err := happen()
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	took := time.Since(begun)
	graceAfter, err := wakeups(grace)
	if err != nil {
		return err
	}
	ofApp := "-" // other processes by now
	if appAfter, err := wakeups(app...); err == nil {
		ofApp = strconv.Itoa(since(appBefore, appAfter))
	}
	m, err := memoryOf(grace)
	if err != nil {
		return err
	}
	t.line("%s\t%.1f s\t%d\t%d\t%s\t%.1f\t%.1f\t%.1f", what, took.Seconds(), count, since(graceBefore, graceAfter), ofApp,
		m.resident, m.shared, m.private)
	return nil
}
