// Package recipes tests the pages beside it, and the quick start: it takes files and commands out of a page, runs them as they are written there,
// and replaces the server again and again under load.
package recipes

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	// the pages' programs are built with this module's versions of them
	_ "github.com/cloudflare/tableflip"
	_ "github.com/coreos/go-systemd/v22/activation"

	"github.com/gracerun/grace/cmd/load"
	"github.com/gracerun/grace/internal/freeport"
	"github.com/gracerun/grace/internal/requirement"
	"github.com/gracerun/grace/test/harness"
)

// recipe is what a page's test has to know beside the page.
type recipe struct {
	needs   []string // programs
	probe   string   // a shell command that succeeds if what the programs need is there too
	clients map[load.Kind]int
	breaks  string // a file in the page's directory without which an upgrade has to fail

	lingers bool                                    // it reads on after it has closed a connection
	alone   bool                                    // the page has only a command without --listen
	apart   bool                                    // the page has only a command that a test of its own runs
	answer  string                                  // what every body is, where it is known
	another func(addr string) (finish func() error) // its load, if that is not HTTP
	count   func(addr, name string) (int, error)    // adds one to a number that an app that cannot run twice stores
	large   bool                                    // its server is too large for scripts/packages: it is tested with -recipes.large only
	module  string                                  // the directory of the module with the Go packages that its program needs
}

// all are the clients of a server that can do everything.
var all = map[load.Kind]int{load.NewConnection: 4, load.KeepAliveGet: 2, load.KeepAlivePost: 2, load.Slow: 2}

// fresh are those of a server that closes every connection after one response.
var fresh = map[load.Kind]int{load.NewConnection: 4, load.Slow: 2}

var recipes = map[string]recipe{
	"apache2":   {needs: []string{"apache2"}, clients: fresh, alone: true, answer: "hello\n"},
	"asyncio":   {needs: []string{"python"}, clients: fresh, alone: true},
	"bbolt":     {clients: map[load.Kind]int{load.NewConnection: 2, load.Slow: 2}, count: countByHTTP, apart: true, module: "../examples"},
	"binary":    {needs: []string{"busybox"}, clients: map[load.Kind]int{load.NewConnection: 4}, alone: true, breaks: "bin/busybox"},
	"c":         {needs: []string{"gcc"}, clients: map[load.Kind]int{load.Echo: 4}, alone: true, breaks: "app"},
	"caddy":     {needs: []string{"caddy"}, clients: fresh, alone: true, answer: "hello\n"},
	"canary":    {needs: []string{"python"}, clients: map[load.Kind]int{load.NewConnection: 4}, apart: true},
	"cluster":   {needs: []string{"node"}, clients: fresh, alone: true},
	"django":    {needs: []string{"gunicorn"}, probe: "/usr/bin/python3 -c 'import django'", clients: fresh, alone: true},
	"express":   {needs: []string{"node"}, probe: "node -e 'require(\"express\")'", clients: fresh, alone: true, large: true},
	"fastapi":   {needs: []string{"uvicorn"}, probe: "/usr/bin/python3 -c 'import fastapi'", clients: fresh, alone: true},
	"flask":     {needs: []string{"gunicorn"}, probe: "/usr/bin/python3 -c 'import flask'", clients: fresh, alone: true},
	"go":        {clients: all, breaks: "app"},
	"gunicorn":  {needs: []string{"gunicorn"}, clients: fresh, breaks: "app.py"},
	"h2o":       {needs: []string{"h2o"}, clients: fresh, alone: true, answer: "hello\n"},
	"haproxy":   {needs: []string{"haproxy"}, clients: all, breaks: "haproxy.cfg"},
	"hyper":     {needs: []string{"cargo"}, probe: "ls -d /usr/share/cargo/registry/hyper-0.14.*", clients: map[load.Kind]int{load.NewConnection: 4, load.Slow: 2, load.Stream: 2}, alone: true, breaks: "target/release/app", large: true},
	"java":      {needs: []string{"java"}, probe: "java --list-modules | grep jdk.compiler", clients: fresh, alone: true},
	"lighttpd":  {needs: []string{"lighttpd"}, clients: fresh, alone: true, answer: "hello\n"},
	"lock":      {needs: []string{"flock", "python"}, clients: map[load.Kind]int{load.NewConnection: 2}, count: countByHTTP, apart: true},
	"nginx":     {needs: []string{"nginx"}, clients: all, breaks: "nginx.conf", lingers: true},
	"node":      {needs: []string{"node"}, clients: all, breaks: "server.js"},
	"php-fpm":   {needs: []string{"php-fpm", "nginx"}, clients: all, breaks: "php-fpm.conf"},
	"puma":      {needs: []string{"puma"}, clients: fresh, alone: true, breaks: "config.ru"},
	"python":    {needs: []string{"python"}, clients: map[load.Kind]int{load.NewConnection: 4}, alone: true},
	"redis":     {needs: []string{"redis-server", "redis-cli"}, another: loadRedis, count: countInRedis, alone: true},
	"rust":      {needs: []string{"rustc"}, clients: map[load.Kind]int{load.Echo: 4}, alone: true, breaks: "app"},
	"sinatra":   {needs: []string{"puma"}, probe: "/usr/bin/ruby -e 'require \"sinatra/base\"'", clients: fresh, alone: true},
	"sqlite":    {needs: []string{"python"}, probe: "python3 -c 'import sqlite3'", clients: map[load.Kind]int{load.NewConnection: 2}, count: countByHTTP, apart: true},
	"starlet":   {needs: []string{"plackup"}, probe: "perl -MStarlet -e 1", clients: all, breaks: "app.psgi"},
	"tableflip": {clients: all, breaks: "app"},
	"uvicorn":   {needs: []string{"uvicorn"}, clients: all, breaks: "app.py"},
}

const (
	upgrades = 10
	patience = 5 * time.Minute // with one page
)

var withLarge = flag.Bool("recipes.large", false, "also test the pages whose servers scripts/packages does not have")

func (r recipe) leftOut() bool { return r.large && !*withLarge }

func TestPages(t *testing.T) {
	for name, recipe := range recipes {
		if recipe.alone || recipe.apart || recipe.leftOut() {
			continue
		}
		t.Run(name, func(t *testing.T) {
			recipe.require(t, name)
			t.Parallel()
			recipe.test(t, name)
		})
	}
}

func (r recipe) test(t *testing.T, name string) {
	front, back := port(freeport.Address(t)), port(freeport.Address(t))
	p := readPage(t, name, map[string]string{"8080": front, "9000": back})
	dir := p.write(t)
	r.build(t, dir)
	link(t, dir, append(r.needs, harness.GraceBinary()))
	held := front
	if command, ok := p.commands["beside"]; ok {
		held = back
		beside := start(t, dir, command)
		beside.AwaitReady(1)
		defer beside.Stop()
	} else {
		harness.ServeBackend(t, "127.0.0.1:"+back)
	}

	server := start(t, dir, p.commands["run"])
	server.AwaitReady(1)
	clients, err := load.Start(t.Context(), load.Config{
		Addr: "127.0.0.1:" + front, Clients: r.clients, ThinkMax: 10 * time.Millisecond, Foreign: true, Lingers: r.lingers,
	})
	if err != nil {
		t.Fatal(err)
	}
	harness.AwaitAnswerOf(t, clients, server.Instance())
	for range upgrades {
		upgrade(server, clients)
	}
	checkSoleListener(t, held)
	refuse(server, filepath.Join(dir, r.breaks))
	checkTally(t, clients.Stop(), r.clients)

	server.Stop()
	checkNoListener(t, held)
}

func upgrade(g *harness.Grace, clients *load.Load) {
	g.T.Helper()
	clients.Mark(load.During)
	g.UpgradeNext()
	harness.AwaitAnswerOf(g.T, clients, g.Instance())
	g.AwaitDrained()
	clients.Mark(load.Outside)
}

// refuse breaks the server's code: the upgrade has to fail, and the load that goes on shows that nobody is harmed.
func refuse(g *harness.Grace, files ...string) {
	g.T.Helper()
	for _, file := range files {
		// The file is removed first since a program that runs cannot be written to.
		if err := os.Remove(file); err != nil {
			g.T.Fatal(err)
		}
		if err := os.WriteFile(file, []byte("this is no code {{{\n"), 0o755); err != nil {
			g.T.Fatal(err)
		}
	}
	g.UpgradeNextFails()
}

// checkTally reports what clients met. Connections that the server closed while they were idle are its own doing.
func checkTally(t *testing.T, tally load.Tally, clients map[load.Kind]int) {
	t.Helper()
	spanning := tally.Latency(load.During, load.Slow).TotalCount()
	t.Logf("%d requests over %d upgrades, %d slow ones met one; %d idle connections were closed by the server",
		tally.Requests(), upgrades, spanning, tally.IdleClosed())
	if tally.Failures() > 0 {
		t.Errorf("%s", tally)
	}
	for kind := range clients {
		if tally.Requests(kind) == 0 {
			t.Errorf("no %s was sent", kind)
		}
	}
	if spanning == 0 {
		t.Error("no slow request met an upgrade")
	}
}

// checkSoleListener fails if the server has bound a socket of its own beside the one that grace holds. One in which clients have waited is
// there for a moment after the old generation has ended.
func checkSoleListener(t *testing.T, port string) {
	t.Helper()
	var number int
	if _, err := fmt.Sscan(port, &number); err != nil {
		t.Fatal(err)
	}
	listening := fmt.Sprintf(":%04X 00000000:0000 0A", number)
	harness.Until(t, "one socket listens on port "+port, func() bool {
		table, err := os.ReadFile("/proc/net/tcp")
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(string(table), listening) == 1
	})
}

func checkNoListener(t *testing.T, port string) {
	t.Helper()
	conn, err := net.Dial("tcp", "127.0.0.1:"+port)
	if errors.Is(err, syscall.ECONNREFUSED) {
		return
	}
	t.Errorf("somebody still listens on port %s (%v)", port, err)
	if err == nil {
		conn.Close()
	}
}

// require skips a test whose server is not there, or fails it where GRACE_REQUIRE says so.
func (r recipe) require(t *testing.T, name string) {
	t.Helper()
	requirement.Check(t, name, r.missing())
}

// missing says what a recipe's server lacks on this machine.
func (r recipe) missing() error {
	for _, program := range r.needs {
		if find(program) == "" {
			return fmt.Errorf("%s is not installed", program)
		}
	}
	if r.probe == "" {
		return nil
	}
	if out, err := exec.Command("sh", "-c", r.probe).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %v\n%s", r.probe, err, out)
	}
	return nil
}

// link makes programs known by the names that pages use.
func link(t *testing.T, dir string, programs []string) {
	t.Helper()
	bin := filepath.Join(dir, "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, program := range programs {
		path := program
		if !filepath.IsAbs(program) {
			path = find(program)
		}
		if err := os.Symlink(path, filepath.Join(bin, filepath.Base(program))); err != nil {
			t.Fatal(err)
		}
	}
}

// compilers make a program called app of a page's source.
var compilers = map[string][]string{
	"main.go": {"go", "build", "-o", "app"},
	"main.c":  {"gcc", "-O2", "-pthread", "-o", "app"},
	"main.rs": {"rustc", "-O", "-o", "app"},
}

// debian makes cargo take the packages of Debian for those that a page's Cargo.toml names.
var debian = []string{"--offline", "--config", `source.crates-io.replace-with="debian"`, "--config", `source.debian.directory="/usr/share/cargo/registry"`}

// build makes the page's program, if it has one to be compiled.
func (r recipe) build(t *testing.T, dir string) {
	t.Helper()
	for source, compiler := range compilers {
		if _, err := os.Stat(filepath.Join(dir, source)); err != nil {
			continue
		}
		words := slices.Clone(compiler)
		words[len(words)-1] = filepath.Join(dir, "app")
		compile := exec.Command(words[0], append(words[1:], filepath.Join(dir, source))...)
		compile.Dir = r.module
		run(t, compile)
	}
	if _, err := os.Stat(filepath.Join(dir, "Cargo.toml")); err == nil {
		cargo := exec.Command("cargo", append([]string{"build", "--release"}, debian...)...)
		cargo.Dir = dir
		run(t, cargo)
	}
}

func run(t *testing.T, compile *exec.Cmd) {
	t.Helper()
	if out, err := compile.CombinedOutput(); err != nil {
		t.Fatalf("cannot build the page's program: %v\n%s", err, out)
	}
}

func TestMain(m *testing.M) { os.Exit(harness.Run(m.Run)) }

func port(addr string) string {
	_, port, _ := net.SplitHostPort(addr)
	return port
}
