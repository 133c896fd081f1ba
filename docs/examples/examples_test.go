//go:build linux

// Package examples runs the examples as their users do.
package examples

import (
	"bufio"
	"bytes"
	"fmt"
	"go/parser"
	"go/token"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	_ "go.etcd.io/bbolt" // the program of a recipe is built with this module's version of it

	"github.com/gracerun/grace/cmd/load"
	"github.com/gracerun/grace/docs/examples/internal/supervised"
	"github.com/gracerun/grace/internal/freeport"
	"github.com/gracerun/grace/internal/requirement"
	"github.com/gracerun/grace/test/harness"
)

// example is one that serves the routes of everyKind.
type example struct {
	name  string
	admin bool // it has a second server
}

var examples = []example{{name: "http", admin: true}, {name: "echo"}, {name: "gin"}, {name: "chi"}, {name: "fiber"}}

// flags are those of the example on free addresses.
func (e example) flags(t *testing.T) (addr string, flags []string) {
	addr = freeport.Address(t)
	flags = []string{"-addr", addr}
	if e.admin {
		flags = append(flags, "-admin", freeport.Address(t))
	}
	return addr, flags
}

// listens are what grace has to hold for these flags.
func listens(flags []string) (arguments []string) {
	for n := 1; n < len(flags); n += 2 {
		arguments = append(arguments, "--listen", flags[n])
	}
	return arguments
}

var everyKind = map[load.Kind]int{
	load.NewConnection: 2, load.KeepAliveGet: 4, load.KeepAlivePost: 16, load.Slow: 2, load.Stream: 2,
}

const upgrades = 5

// under runs do while clients that never retry send load, and wants not one request to fail and each kind to be sent.
func under(t *testing.T, addr string, clients map[load.Kind]int, do func()) load.Tally {
	t.Helper()
	tally := harness.UnderLoad(t, load.Config{Addr: addr, Clients: clients, Paths: map[load.Kind]string{load.Slow: "/slow"}}, do)
	for kind := range clients {
		if tally.Requests(kind) == 0 {
			t.Errorf("no %s was sent", kind)
		}
	}
	return tally
}

func TestUpgrades(t *testing.T) {
	for _, e := range examples {
		t.Run(e.name, func(t *testing.T) {
			addr, flags := e.flags(t)
			command := append([]string{"--", harness.Program(e.name)}, flags...)
			g := supervised.Grace(t, append(listens(flags), command...)...)
			tally := under(t, addr, everyKind, func() { upgrade(g) })
			if tally.Kinds[load.KeepAlivePost].Reconnects == 0 {
				t.Error("no client was asked to leave")
			}
			g.Stop()
		})
	}
}

func TestMinimalUpgrades(t *testing.T) {
	addr := buildMinimal(t)
	g := supervised.Grace(t, "--listen", addr, "--", harness.Program("minimal"))
	under(t, addr, map[load.Kind]int{load.NewConnection: 2, load.KeepAliveGet: 8}, func() { upgrade(g) })
	g.Stop()
}

// upgrade replaces the app again and again, one right after the other.
func upgrade(g *harness.Grace) {
	for range upgrades {
		g.UpgradeNext()
	}
}

// Without a successor the clients have nowhere to go, but each of their requests is answered, the last one with the
// request to leave.
func TestEndAlone(t *testing.T) {
	for _, e := range examples {
		t.Run(e.name, func(t *testing.T) {
			addr, flags := e.flags(t)
			p := supervised.Start(t, harness.Program(e.name), flags...)
			endUnderLoad(t, p, addr)
		})
	}
}

func TestEndUnderSocketActivation(t *testing.T) {
	activate, err := exec.LookPath("systemd-socket-activate")
	requirement.Check(t, "systemd", err)
	for _, e := range examples {
		t.Run(e.name, func(t *testing.T) {
			addr, flags := e.flags(t)
			var arguments []string
			for n := 1; n < len(flags); n += 2 {
				arguments = append(arguments, "--listen", flags[n])
			}
			arguments = append(arguments, harness.Program(e.name))
			p := supervised.Start(t, activate, append(arguments, flags...)...)
			endUnderLoad(t, p, addr)
		})
	}
}

// endUnderLoad stops a server while one request waits in it for the end of its body, and others come.
func endUnderLoad(t *testing.T, p *harness.Process, addr string) {
	t.Helper()
	held := hold(t, addr)
	clients := &clients{addr: addr}
	for range 16 {
		clients.begun.Add(1)
		clients.running.Go(clients.run)
	}
	clients.begun.Wait()
	p.Signal(syscall.SIGTERM)
	p.AwaitText("start draining")
	clients.running.Wait()
	for _, err := range clients.failed {
		t.Error(err)
	}
	held.Finish()
	p.Ends(0)
}

// hold begins a request as soon as somebody listens, and returns when the server has asked for its body.
func hold(t *testing.T, addr string) harness.Request {
	t.Helper()
	harness.AwaitListener(t, "tcp", addr)
	return harness.BeginRequest(t, addr)
}

// clients send POSTs on a connection each until they are asked to leave.
type clients struct {
	addr    string
	begun   sync.WaitGroup // done with each first answer
	running sync.WaitGroup
	mu      sync.Mutex
	failed  []error
}

func (c *clients) run() {
	begun := sync.OnceFunc(c.begun.Done)
	defer begun()
	conn, err := net.Dial("tcp", c.addr)
	if err != nil {
		c.fail(err)
		return
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	in := bufio.NewReader(conn)
	for n := 0; ; n++ {
		response, err := post(conn, in)
		if err != nil {
			c.fail(fmt.Errorf("request %d of a connection got no answer: %w", n, err))
			return
		}
		begun()
		if response.Close {
			return
		}
	}
}

func (c *clients) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failed = append(c.failed, err)
}

func post(conn net.Conn, in *bufio.Reader) (*http.Response, error) {
	ask(conn)
	return answer(in)
}

func ask(conn net.Conn) {
	fmt.Fprint(conn, "POST /echo HTTP/1.1\r\nHost: client\r\nContent-Length: 4\r\n\r\nbody")
}

func answer(in *bufio.Reader) (*http.Response, error) {
	response, err := http.ReadResponse(in, nil)
	if err != nil {
		return nil, err
	}
	if body, err := io.ReadAll(response.Body); string(body) != "body" {
		return nil, fmt.Errorf("%s with %q: %w", response.Status, body, err)
	}
	return response, nil
}

// Connections that nobody has accepted yet are established for their clients, which have sent their requests too.
func TestEndWithAQueue(t *testing.T) {
	for _, e := range examples {
		t.Run(e.name, func(t *testing.T) {
			addr, flags := e.flags(t)
			p := supervised.Start(t, harness.Program(e.name), flags...)
			hold(t, addr).Finish()
			p.Signal(syscall.SIGSTOP)
			waiting := make([]net.Conn, 300)
			for n := range waiting {
				waiting[n] = dial(t, addr)
				ask(waiting[n])
			}
			p.Signal(syscall.SIGTERM)
			p.Signal(syscall.SIGCONT)
			for n, conn := range waiting {
				if _, err := answer(bufio.NewReader(conn)); err != nil {
					t.Errorf("connection %d of the queue: %v", n, err)
				}
				conn.Close()
			}
			p.Ends(0)
		})
	}
}

// A download that has begun is complete, whoever serves it.
func TestMinimalEndAlone(t *testing.T) {
	addr := buildMinimal(t)
	big := harness.Program("big")
	const size = 64 << 20
	if err := os.WriteFile(big, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(big, size); err != nil {
		t.Fatal(err)
	}
	p := supervised.Start(t, harness.Program("minimal"))
	conn := dial(t, addr)
	fmt.Fprint(conn, "GET /big HTTP/1.1\r\nHost: client\r\n\r\n")
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	p.Signal(syscall.SIGTERM)
	p.AwaitText("start draining (1 in flight)")
	if n, err := io.Copy(io.Discard, response.Body); n != size || err != nil {
		t.Errorf("%d bytes came: %v", n, err)
	}
	p.Ends(0)
}

func TestMinimalIsSmall(t *testing.T) {
	source, err := os.ReadFile("minimal/main.go")
	if err != nil {
		t.Fatal(err)
	}
	_, program, _ := bytes.Cut(source, []byte("\npackage main"))
	lines := 0
	for line := range strings.Lines("package main" + string(program)) {
		if strings.TrimSpace(line) != "" {
			lines++
		}
	}
	if lines > 15 {
		t.Errorf("minimal has %d lines", lines)
	}
}

// Each folder is an example that says what it shows, and README.md leads to it.
func TestIndex(t *testing.T) {
	index, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	mains, err := filepath.Glob("*/main.go")
	if err != nil || len(mains) == 0 {
		t.Fatalf("no example: %v", err)
	}
	for _, path := range mains {
		name := filepath.Dir(path)
		if !bytes.Contains(index, []byte("]("+name+"/")) {
			t.Errorf("README.md does not lead to %s", name)
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments|parser.PackageClauseOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, say := range []string{"go run ./" + name, "grace run"} {
			if !strings.Contains(file.Doc.Text(), say) {
				t.Errorf("the comment above %s does not say %q", path, say)
			}
		}
	}
}
