package recipes

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gracerun/grace/cmd/load"
	"github.com/gracerun/grace/internal/freeport"
	"github.com/gracerun/grace/internal/redis"
	"github.com/gracerun/grace/test/harness"
)

// stopFirstUpgrades are many: what the app has stored goes from one to the next.
const stopFirstUpgrades = 10

const servesAgain = "instances serve again"

// TestPagesOneAfterTheOther runs the commands of apps that cannot run twice.
func TestPagesOneAfterTheOther(t *testing.T) {
	for name, recipe := range recipes {
		if recipe.count == nil {
			continue
		}
		t.Run(name, func(t *testing.T) {
			recipe.require(t, name)
			t.Parallel()
			recipe.testStopFirst(t, name)
		})
	}
}

func (r recipe) testStopFirst(t *testing.T, name string) {
	front := port(freeport.Address(t))
	addr := "127.0.0.1:" + front
	p := readPage(t, name, map[string]string{"8080": front, "6379": front})
	dir := t.TempDir()
	good, bad := r.release(t, p, dir, "good"), p.brokenRelease(t, dir)
	link(t, dir, append(r.needs, harness.GraceBinary()))

	deploy(t, dir, good)
	server := start(t, dir, p.commands["stop-first"])
	server.AwaitReady(1)
	count := startCounting(addr, r.count)
	finish := r.loadBeside(t, addr)
	for range stopFirstUpgrades {
		server.UpgradeNext()
		server.AwaitDrained()
	}
	deploy(t, dir, bad)
	server.UpgradeNextFails()
	server.AwaitTimes("the old version serves again", stopFirstUpgrades+1, func(e harness.Entry) bool { return e.Message == servesAgain })
	count.await(t) // the old version
	deploy(t, dir, good)
	if err := errors.Join(count.stop(), finish()); err != nil {
		t.Error(err)
	}
	t.Logf("%d numbers were counted over %d upgrades, the longest wait was %v; no instance served for %v", count.answers, stopFirstUpgrades, count.longest, gaps(server))
	server.Stop()
	checkNoListener(t, front)
}

// gaps are the times without an instance that served, in milliseconds.
func gaps(g *harness.Grace) (gaps []float64) {
	for _, e := range g.Entries() {
		if e.Message == servesAgain {
			gaps = append(gaps, e.Took)
		}
	}
	return gaps
}

// release makes the directory of one version.
func (r recipe) release(t *testing.T, p page, dir, name string) string {
	t.Helper()
	release := p.writeTo(t, filepath.Join(dir, name))
	r.build(t, release)
	return name
}

// brokenRelease makes the directory of a version that ends when it is started.
func (p page) brokenRelease(t *testing.T, dir string) (name string) {
	t.Helper()
	for file := range p.files {
		p.files[file] = "this is no code {{{\n"
	}
	release := p.writeTo(t, filepath.Join(dir, "bad"))
	harness.Write(t, release, "app", "#!/bin/sh\nexit 3\n", 0o755)
	return "bad"
}

// deploy moves the link in one step.
func deploy(t *testing.T, dir, release string) {
	t.Helper()
	moved := filepath.Join(dir, "moved")
	if err := errors.Join(os.Symlink(release, moved), os.Rename(moved, filepath.Join(dir, "current"))); err != nil {
		t.Fatal(err)
	}
}

// loadBeside sends requests of other kinds, where the page's app knows any.
func (r recipe) loadBeside(t *testing.T, addr string) (finish func() error) {
	t.Helper()
	if r.clients == nil {
		return func() error { return nil }
	}
	return loadHTTP(t, load.Config{Addr: addr, Clients: r.clients})
}

// counting are clients that never retry. Each adds one to a number of its own that the server stores, on a new connection each time.
// A server that has lost a number that it had answered, or has counted twice, answers a wrong one.
type counting struct {
	ending  chan struct{}
	clients sync.WaitGroup

	mu       sync.Mutex
	answers  int
	longest  time.Duration
	failures []error
}

const counters = 4

func startCounting(addr string, count func(addr, name string) (int, error)) *counting {
	c := &counting{ending: make(chan struct{})}
	for client := range counters {
		c.clients.Go(func() { c.run(func() (int, error) { return count(addr, fmt.Sprint("client-", client)) }) })
	}
	return c
}

func (c *counting) run(count func() (int, error)) {
	for last := 0; !c.ended(); last++ {
		begun := time.Now()
		n, err := count()
		if err == nil && n != last+1 {
			err = fmt.Errorf("%d came after %d", n, last)
		}
		c.note(time.Since(begun), err)
		if err != nil {
			return
		}
	}
}

func (c *counting) note(took time.Duration, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answers++
	c.longest = max(c.longest, took)
	if err != nil {
		c.failures = append(c.failures, fmt.Errorf("%s: %w", time.Now().Format("15:04:05.000"), err))
	}
}

func (c *counting) ended() bool {
	select {
	case <-c.ending:
		return true
	case <-time.After(5 * time.Millisecond):
		return false
	}
}

// await waits until requests that were not yet under way have been answered, or one has failed.
func (c *counting) await(t *testing.T) {
	t.Helper()
	begun, _ := c.state()
	harness.Until(t, "the server counts", func() bool {
		answers, failed := c.state()
		return failed || answers > begun+counters
	})
}

func (c *counting) state() (answers int, failed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.answers, len(c.failures) > 0
}

func (c *counting) stop() error {
	close(c.ending)
	c.clients.Wait()
	return errors.Join(c.failures...)
}

func countByHTTP(addr, name string) (int, error) {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}
	response, err := client.Post("http://"+addr+"/count/"+name, "text/plain", http.NoBody)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		return 0, cmp.Or(err, errors.New(response.Status))
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}

func countInRedis(addr, name string) (int, error) {
	conn, err := redis.Dial(addr)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	text, err := conn.Do("INCR", name)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(text)
}
