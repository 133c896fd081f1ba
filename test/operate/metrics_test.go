package operate

import (
	"context"
	"crypto/rand"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/gracerun/grace/cmd/load"
	"github.com/gracerun/grace/internal/freeport"
	"github.com/gracerun/grace/test/harness"
)

// scraper asks a grace process for metrics and health.
type scraper struct {
	t      *testing.T
	client http.Client
}

func newScraper(t *testing.T, network, addr string) *scraper {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, addr)
	}
	return &scraper{t, http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}, Timeout: harness.Patience}}
}

func (s *scraper) get(path string) (int, string) {
	s.t.Helper()
	response, err := s.client.Get("http://grace" + path)
	if err != nil {
		s.t.Error(err)
		return 0, ""
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		s.t.Error(err)
	}
	return response.StatusCode, string(body)
}

func (s *scraper) want(lines ...string) {
	s.t.Helper()
	status, text := s.get("/metrics")
	for _, line := range lines {
		if !strings.Contains(text, line+"\n") {
			s.t.Errorf("%d, no %s in:\n%s", status, line, text)
		}
	}
}

func (s *scraper) readyz(want int) {
	s.t.Helper()
	if status, why := s.get("/readyz"); status != want {
		s.t.Errorf("/readyz: %d %s", status, why)
	}
	if status, why := s.get("/healthz"); status != http.StatusOK {
		s.t.Errorf("/healthz: %d %s", status, why)
	}
}

func scraperOf(s *harness.Grace) *scraper {
	s.T.Helper()
	e := s.AwaitMessage("serving metrics")
	return newScraper(s.T, e.Network, e.Address)
}

// One life: it starts, is upgraded under load while somebody asks all the time, fails to be, crashes, and is stopped.
func TestMetricsOfALife(t *testing.T) {
	dir := t.TempDir()
	program, arguments := harness.AppScript(t, dir)
	gate := filepath.Join(dir, "gate")
	if err := syscall.Mkfifo(gate, 0o600); err != nil {
		t.Fatal(err)
	}
	harness.Write(t, dir, "program", "#!/bin/sh\nread go < "+gate+"\nexec "+harness.AppBinary()+" $(cat "+arguments+" 2>/dev/null)\n", 0o755)
	s := harness.Start(t, "--metrics", "127.0.0.1:0", "--listen", "web=127.0.0.1:0", "--", program)
	addr, m := s.Address("web"), scraperOf(s)
	s.AwaitGeneration("instance started", 1)
	m.readyz(http.StatusServiceUnavailable)
	m.want(`grace_generation 0`, `grace_ready 0`, `grace_instances{phase="starting"} 1`)
	harness.Write(t, dir, "gate", "go\n", 0)
	s.AwaitReady(1)
	harness.Write(t, dir, "program", "#!/bin/sh\nexec "+harness.AppBinary()+" $(cat "+arguments+" 2>/dev/null)\n", 0o755)
	asked := make(chan struct{})
	harness.UnderLoad(t, load.Config{Addr: addr, Clients: harness.EveryKind}, func() {
		go func() {
			defer close(asked)
			for range 50 {
				m.readyz(http.StatusOK)
				m.get("/metrics")
			}
		}()
		s.Upgrades(5)
		<-asked
	})
	for g := 1; g <= 5; g++ {
		s.AwaitGeneration("generation ended", g)
	}
	m.want(`grace_upgrades_total{result="upgraded"} 5`, `grace_upgrade_duration_seconds_count 5`, `grace_drain_duration_seconds_count 5`,
		`grace_generation 6`, `grace_ready 1`, `grace_instances{phase="ready"} 1`, `grace_queue_length{address="`+addr+`",listener="web"} 0`)
	harness.Write(t, dir, "arguments", "-fail "+arguments, 0o600)
	s.Signal(syscall.SIGHUP)
	s.AwaitGeneration("upgrade failed", 7)
	harness.Write(t, dir, "arguments", "-ignore-term", 0o600)
	crash(t, s, 6)
	m.want(`grace_upgrades_total{result="failed"} 1`, `grace_crashes_total 1`, `grace_restarts_total 1`, `grace_kills_total 0`, `grace_generation 6`)
	s.Signal(syscall.SIGTERM)
	s.AwaitMessage("stopping")
	m.readyz(http.StatusServiceUnavailable)
	s.Signal(syscall.SIGQUIT)
	s.Ends(137)
}

// crash ends a generation's one instance, and waits for the next one.
func crash(t *testing.T, s *harness.Grace, generation int) {
	t.Helper()
	pid := s.AwaitGeneration("instance started", generation).PID
	harness.Kill(t, pid)
	s.Await("started again", func(e harness.Entry) bool {
		return e.Message == "instance ready" && e.Generation == generation && e.PID != pid
	})
}

func TestMetricsOnAUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "metrics")
	s := harness.Start(t, "--metrics", "unix://"+path, "--listen", "web=127.0.0.1:0", "--", harness.AppBinary())
	s.AwaitReady(1)
	scraperOf(s).readyz(http.StatusOK)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	s.Stop()
}

// The app has no part in it.
func TestMetricsSocketIsNotTheApps(t *testing.T) {
	s := harness.Start(t, "--metrics", "127.0.0.1:0", "--listen", "web=127.0.0.1:0", "--", harness.AppBinary())
	s.AwaitReady(1)
	m := scraperOf(s)
	conn, err := net.Dial("tcp", s.AwaitMessage("serving metrics").Address) // one that is open when the next app starts
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	m.readyz(http.StatusOK)
	s.Upgrade(2)
	own := socketsOf(t, s.PID())
	shared := 0
	for inode := range socketsOf(t, s.AwaitGeneration("instance started", 2).PID) {
		if own[inode] {
			shared++
		}
	}
	if shared != 1 {
		t.Errorf("the app shares %d sockets with grace, and is to share the one of web", shared)
	}
	s.Stop()
}

func socketsOf(t *testing.T, pid int) map[string]bool {
	t.Helper()
	links, err := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	inodes := map[string]bool{}
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && strings.HasPrefix(target, "socket:") {
			inodes[target] = true
		}
	}
	return inodes
}

func TestMetricsAddressThatCannotBe(t *testing.T) {
	for _, c := range []struct {
		addr   string
		status int
	}{{"udp://127.0.0.1:0", 2}, {"127.0.0.1:0?steer=true", 2}, {"nonsense:x", 2}, {"192.0.2.1:1", 1}} {
		s := harness.Start(t, "--metrics", c.addr, "--listen", "web=127.0.0.1:0", "--", harness.AppBinary())
		s.Ends(c.status)
	}
}

// TestSharesAndScalingsAreTold to hooks and in the metrics.
func TestSharesAndScalingsAreTold(t *testing.T) {
	addr, dir := freeport.Address(t), t.TempDir()
	told := filepath.Join(dir, "told")
	s := harness.Start(t, "--name", "shares-"+strings.ToLower(rand.Text()), "--metrics", "127.0.0.1:0", "--canary", "25%", "--max-age", "5s",
		"--on", "scaled=echo scaled to $GRACE_INSTANCES >> "+told, "--on", "sharing=echo generation $GRACE_GENERATION gets $GRACE_SHARE >> "+told,
		"--on", "replaced=echo replaced $GRACE_INSTANCE >> "+told, "--", harness.AppBinary(), "-addr", addr)
	m := scraperOf(s)
	s.AwaitReady(1)
	m.want(`grace_instances_wanted 1`, `grace_connection_share{phase="current"} 1`, `grace_connection_share{phase="sharing"} 0`)
	s.AwaitMessage("instance replaced")
	s.Signal(syscall.SIGTTIN)
	s.AwaitMessage("scaled to")
	s.Signal(syscall.SIGHUP)
	s.Await("a share", func(e harness.Entry) bool {
		return e.Generation == 2 && strings.Contains(e.Message, "of the new connections")
	})
	m.want(`grace_instances_wanted 2`, `grace_connection_share{phase="current"} 0.75`, `grace_connection_share{phase="sharing"} 0.25`,
		`grace_scalings_total{result="scaled"} 1`)
	for _, line := range []string{"replaced 1", "scaled to 2", "generation 2 gets 0.25"} {
		harness.Until(t, "a hook has told "+line, func() bool {
			text, _ := os.ReadFile(told)
			return slices.Contains(strings.Split(string(text), "\n"), line)
		})
	}
	s.Stop()
}
