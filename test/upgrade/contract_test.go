package upgrade

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gracerun/grace/cmd/load"
	"github.com/gracerun/grace/internal/freeport"
	"github.com/gracerun/grace/test/harness"
)

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
			command := []string{"--listen", "web=" + addr, "--dialect", dialect, "--ready", "notify", "--", harness.ServerBinary()}
			for _, arg := range arguments {
				command = append(command, strings.ReplaceAll(arg, "ADDR", addr))
			}
			s := harness.Start(t, command...)
			s.AwaitReady(1)
			harness.UnderLoad(t, load.Config{Addr: addr, Clients: harness.FewClients}, func() { s.Upgrades(10) })
			s.Stop()
		})
	}
}

// Alone, the program refuses new clients at its end, and finishes what it has.
func TestSameProgramAlone(t *testing.T) {
	addr := freeport.Address(t)
	c := exec.Command(harness.ServerBinary(), "-addr", addr)
	c.Stdout, c.Stderr = t.Output(), t.Output()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer c.Process.Kill()
	var conn net.Conn
	harness.Until(t, "the program listens", func() (listens bool) {
		var err error
		conn, err = net.Dial("tcp", addr)
		return err == nil
	})
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(harness.Patience)); err != nil {
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
	s := harness.Start(t, "--listen", "web=127.0.0.1:0", "--capture", "off", "--drain-timeout", "1m5s", "--", harness.ServerBinary(), "-network", "fd", "-addr", "{fd}")
	addr := s.Address("web")
	s.AwaitReady(1)
	if env := harness.Get(t, addr, "/env"); !strings.Contains(env, "GRACE_KILL_AFTER=1m5s\n") {
		t.Errorf("environment:\n%s", env)
	}
	request := harness.BeginRequest(t, addr)
	s.Upgrade(2)
	s.AwaitGeneration("draining (1 connection, 1 request in flight)", 1)
	request.Finish()
	s.AwaitGeneration("generation ended", 1)
	s.Stop()
}

// An app that begins its end by itself says STOPPING=1, and what --restart says follows.
func TestAppThatStopsByItself(t *testing.T) {
	t.Parallel()
	command := []string{"--listen", "web=127.0.0.1:0", "--restart", "POLICY", "--", harness.ServerBinary(), "-network", "fd", "-addr", "{fd}"}
	t.Run("on-failure", func(t *testing.T) {
		command[3] = "on-failure"
		s := harness.Start(t, command...)
		addr := s.Address("web")
		s.AwaitReady(1)
		harness.Get(t, addr, "/leave")
		s.AwaitGeneration("instance is stopping by itself", 1)
		s.AwaitMessage("the app has ended")
		s.Ends(0)
	})
	t.Run("always", func(t *testing.T) {
		command[3] = "always"
		s := harness.Start(t, command...)
		addr := s.Address("web")
		s.AwaitReady(1)
		harness.UnderLoad(t, load.Config{Addr: addr, Clients: harness.FewClients}, func() {
			for instance := 2; instance <= 4; instance++ {
				harness.Get(t, addr, "/leave")
				s.Await("a restart", func(e harness.Entry) bool { return e.Message == "instance ready" && e.Instance == instance })
			}
		})
		s.Stop()
	})
}
