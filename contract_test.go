//go:build linux

package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gracerun/grace/cmd/load"
	"github.com/gracerun/grace/internal/freeport"
)

// server builds the one program of these tests.
var server = sync.OnceValues(func() (string, error) {
	path := filepath.Join(filepath.Dir(appBinary), "server")
	out, err := exec.Command("go", "build", "-o", path, "./testdata/server").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("cannot build testdata/server: %w\n%s", err, out)
	}
	return path, nil
})

func serverBinary(t *testing.T) string {
	t.Helper()
	path, err := server()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// impatient are clients that never retry and think for a few milliseconds.
var impatient = map[load.Kind]int{load.NewConnection: 2, load.KeepAliveGet: 2, load.KeepAlivePost: 2, load.Slow: 1}

func TestSameProgramInEveryDialect(t *testing.T) {
	for dialect, arguments := range map[string][]string{
		"systemd":                  {"-addr", "ADDR"},
		"server-starter":           {"-addr", "ADDR"},
		"einhorn":                  {"-addr", "ADDR"},
		"nginx":                    {"-addr", "ADDR"},
		"php-fpm":                  {"-addr", "ADDR"},
		"tableflip":                {"-addr", "ADDR"},
		"stdin":                    {"-addr", "ADDR"},
		"systemd,stdin":            {"-addr", "ADDR"},
		"tableflip,server-starter": {"-addr", "ADDR"},
		"none":                     {"-network", "fd", "-addr", "{fd:web}"},
	} {
		t.Run(dialect, func(t *testing.T) {
			t.Parallel()
			addr := freeport.Address(t)
			command := []string{"--listen", "web=" + addr, "--dialect", dialect, "--ready", "notify", "--", serverBinary(t)}
			for _, arg := range arguments {
				command = append(command, strings.ReplaceAll(arg, "ADDR", addr))
			}
			s := grace(t, command...)
			s.ready(1)
			under(t, load.Config{Addr: addr, Clients: impatient}, func() { s.upgrades(10) })
			s.stop()
		})
	}
}

// Alone, the program refuses new clients at its end, and finishes what it has.
func TestSameProgramAlone(t *testing.T) {
	addr := freeport.Address(t)
	c := exec.Command(serverBinary(t), "-addr", addr)
	c.Stdout, c.Stderr = t.Output(), t.Output()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer c.Process.Kill()
	var conn net.Conn
	until(t, "the program listens", func() (listens bool) {
		var err error
		conn, err = net.Dial("tcp", addr)
		return err == nil
	})
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(conn, "GET /slow?for=1s HTTP/1.1\r\nHost: a\r\n\r\n")
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		t.Errorf("the response was cut: %v", err)
	}
	if err := c.Wait(); err != nil {
		t.Errorf("it ended with %v", err)
	}
	if conn, err := net.Dial("tcp", addr); err == nil {
		conn.Close()
		t.Error("somebody listens still")
	}
}

func TestAppKnowsItsTimeAndTellsHowItsDrainGoes(t *testing.T) {
	t.Parallel()
	s := grace(t, "--listen", "web=127.0.0.1:0", "--drain-timeout", "1m5s", "--", serverBinary(t), "-network", "fd", "-addr", "{fd}")
	addr := s.address("web")
	s.ready(1)
	if env := ask(t, addr, "/env"); !strings.Contains(env, "GRACE_KILL_AFTER=1m5s\n") {
		t.Errorf("environment:\n%s", env)
	}
	request := begin(t, addr)
	s.upgrade(2)
	s.awaitOf("draining (1 connections, 1 requests in flight)", 1)
	request.finish()
	s.awaitOf("generation ended", 1)
	s.stop()
}

// An app that begins its end by itself says STOPPING=1, and what --restart says follows.
func TestAppThatStopsByItself(t *testing.T) {
	t.Parallel()
	command := []string{"--listen", "web=127.0.0.1:0", "--restart", "POLICY", "--", serverBinary(t), "-network", "fd", "-addr", "{fd}"}
	t.Run("on-failure", func(t *testing.T) {
		command[3] = "on-failure"
		s := grace(t, command...)
		addr := s.address("web")
		s.ready(1)
		ask(t, addr, "/leave")
		s.awaitOf("instance stops by itself", 1)
		s.awaitMessage("the app has ended")
		if status := s.wait(); status != 0 {
			t.Errorf("status %d", status)
		}
	})
	t.Run("always", func(t *testing.T) {
		command[3] = "always"
		s := grace(t, command...)
		addr := s.address("web")
		s.ready(1)
		under(t, load.Config{Addr: addr, Clients: impatient}, func() {
			for instance := 2; instance <= 4; instance++ {
				ask(t, addr, "/leave")
				s.await("a restart", func(e entry) bool { return e.Message == "instance ready" && e.Instance == instance })
			}
		})
		s.stop()
	})
}
