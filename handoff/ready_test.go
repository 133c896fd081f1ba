package handoff

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// notifySocket stands in for a supervisor that asks for notifications.
func notifySocket(t *testing.T, addr string) *net.UnixConn {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: addr, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	t.Setenv("NOTIFY_SOCKET", addr)
	return conn
}

func TestMessagesToTheSupervisor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	for _, addr := range []string{path, "@" + path} {
		conn := notifySocket(t, addr)
		for want, say := range map[string]func() error{
			"READY=1":                    Ready,
			"STOPPING=1":                 Stopping,
			"STATUS=warming up":          func() error { return Status("warming up") },
			"STATUS=two lines READY=1 3": func() error { return Status("two lines\nREADY=1\r\n3") },
			"X_GRACE_INFLIGHT=12":        func() error { return InFlight(12) },
		} {
			if err := say(); err != nil {
				t.Fatal(err)
			}
			message := make([]byte, 100)
			n, err := conn.Read(message)
			if got := string(message[:n]); got != want {
				t.Errorf("%s arrives at %s as %q, %v", want, addr, got, err)
			}
		}
	}
}

func TestReadyWithoutSupervisor(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	if err := Ready(); err != nil {
		t.Error(err)
	}
}

func TestReadyToNobody(t *testing.T) {
	for addr, want := range map[string]string{
		filepath.Join(t.TempDir(), "nobody"): "no such file",
		"@nobody at all":                     "connection refused",
		"vsock:2:9999":                       "neither an absolute path nor @name",
	} {
		t.Setenv("NOTIFY_SOCKET", addr)
		err := Ready()
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "READY=1") {
			t.Errorf("%s gives %v, without %q", addr, err, want)
		}
	}
}

func TestSupervisorThatDoesNotReadIsGivenUp(t *testing.T) {
	addr := filepath.Join(t.TempDir(), "notify")
	notifySocket(t, addr)
	var err error
	for err == nil {
		err = send(addr, "READY=1", time.Millisecond)
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
}

func TestKillAfter(t *testing.T) {
	for value, want := range map[string]time.Duration{
		"30s": 30 * time.Second, "1m30s": 90 * time.Second, "250ms": 250 * time.Millisecond,
		"": 0, "0s": 0, "-5s": 0, "30": 0, "soon": 0,
	} {
		t.Setenv("GRACE_KILL_AFTER", value)
		if got, told := KillAfter(); got != want || told != (want > 0) {
			t.Errorf("%q gives %s, %v", value, got, told)
		}
	}
}
