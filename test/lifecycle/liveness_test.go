package lifecycle

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gracerun/grace/cmd/load"
	"github.com/gracerun/grace/test/harness"
)

// TestInstanceThatFailsItsProbeIsReplaced: all works but the probe. The second time it is the grace process that has adopted the app who asks.
func TestInstanceThatFailsItsProbeIsReplaced(t *testing.T) {
	for _, way := range []string{"held", "captured"} {
		t.Run(way+", http", func(t *testing.T) {
			t.Parallel()
			fall := func(_ int, addr string) { harness.Get(t, addr, "/ill") }
			replaceIll(t, way, "http://ADDR/health", "the probe was answered with 503 Service Unavailable", fall)
		})
		t.Run(way+", command", func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			fall := func(pid int, _ string) { harness.Touch(t, filepath.Join(dir, strconv.Itoa(pid))) }
			replaceIll(t, way, "cmd:echo no; test ! -e "+dir+"/{pid}", "the probe failed (exit status 1): no", fall)
		})
	}
}

func replaceIll(t *testing.T, way, probe, why string, fall func(pid int, addr string)) {
	s, addr := startLive(t, way, probe)
	harness.UnderLoad(t, load.Config{Addr: addr, Clients: harness.FewClients}, func() {
		fall(s.AwaitInstance("instance ready", 1).PID, addr)
		if e := s.AwaitMessage("replacing an instance"); e.Instance != 1 || e.Why != "--live failed 2 times in a row: "+why {
			t.Errorf("%+v", e)
		}
		s.AwaitInstance("instance replaced", 1)
	})
	second := s.AwaitInstance("instance ready", 2).PID
	s.Kill()
	s.Again()
	s.AwaitOneGeneration()
	fall(second, addr)
	s.AwaitInstance("instance replaced", 2)
	s.End()
}

func startLive(t *testing.T, way, probe string, flags ...string) (*harness.KilledGrace, string) {
	t.Helper()
	return startToKill(t, way, append(flags, "--live", probe, "--live-interval", "100ms", "--live-failures", "2")...)
}

// TestClientsOfAnInstanceThatHangsAreAnswered: those that wait in its queue when it is replaced, too.
func TestClientsOfAnInstanceThatHangsAreAnswered(t *testing.T) {
	for _, way := range []string{"held", "captured"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			s, addr := startLive(t, way, "http://ADDR/health", "--drain-timeout", "8s")
			hung := s.AwaitInstance("instance ready", 1).PID
			hang(t, hung)
			var waiting []net.Conn
			for range 20 {
				waiting = append(waiting, ask(t, addr))
			}
			s.AwaitInstance("instance replaced", 1)
			for range 20 {
				if by := answer(t, ask(t, addr)); by == hung {
					t.Error("the instance that hangs has answered")
				}
			}
			for _, conn := range waiting {
				answer(t, conn)
			}
			s.AwaitOneGeneration()
			s.End()
		})
	}
}

// hang returns when no thread of the process runs: until then it can accept a connection, which ends with it.
func hang(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	harness.Until(t, "the process has stopped", func() bool {
		stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		return err == nil && !slices.ContainsFunc(stats, func(path string) bool {
			stat, err := os.ReadFile(path)
			_, state, _ := strings.Cut(string(stat), ") ")
			return err == nil && !strings.HasPrefix(state, "T")
		})
	})
}

func ask(t *testing.T, addr string) net.Conn { return askFor(t, addr, "/") }

func askFor(t *testing.T, addr, path string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", path)
	return conn
}

// answer gives the process that has answered.
func answer(t *testing.T, conn net.Conn) (pid int) {
	t.Helper()
	if err := conn.SetDeadline(time.Now().Add(harness.Patience)); err != nil {
		t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Fatal(response.Status)
	}
	pid, err = strconv.Atoi(response.Header.Get("X-Pid"))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// TestInstanceAmongManyIsProbed: each is asked itself, and only the one that fails is replaced.
func TestInstanceAmongManyIsProbed(t *testing.T) {
	s, addr := startLive(t, "captured", "http://ADDR/health", "--instances", "3")
	harness.UnderLoad(t, load.Config{Addr: addr, Clients: harness.FewClients}, func() {
		ill := answer(t, askFor(t, addr, "/ill"))
		e := s.AwaitMessage("instance replaced")
		if pid := s.AwaitInstance("instance ready", e.Instance).PID; pid != ill {
			t.Errorf("process %d was replaced and not %d", pid, ill)
		}
	})
	if n := strings.Count(s.Output(), `"replacing an instance"`); n != 1 {
		t.Errorf("%d instances were replaced", n)
	}
	s.End()
}
