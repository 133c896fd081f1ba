package soak

import (
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/gracerun/grace/cmd/load"
	"github.com/gracerun/grace/handoff/farewell"
	"github.com/gracerun/grace/internal/requirement"
	"github.com/gracerun/grace/test/harness"
)

// app is a server, and a way for it to get its socket.
type app struct {
	name      string
	arguments func(t *testing.T, address string) []string // of grace run
	clients   func(*load.Config)
	foreign   bool // it knows nothing of grace: its clients are asked to leave by the kernel
}

// apps have clients that never retry. The pauses are such that a million requests and a thousand upgrades take about as long.
func apps() []app {
	return []app{
		{"Go with drain, held", func(_ *testing.T, address string) []string {
			return []string{"--listen", "web=" + address, "--", harness.AppBinary()}
		}, everyKind, false},
		{"Go with drain, captured", func(_ *testing.T, address string) []string {
			return []string{"--settle", "50ms", "--", harness.AppBinary(), "-addr", address}
		}, everyKind, false},
		{"Go with drain, two instances, ?steer=true", func(_ *testing.T, address string) []string {
			return []string{"--settle", "50ms", "--instances", "2", "--listen", "web=" + address + "?steer=true", "--", harness.AppBinary()}
		}, everyKind, false},
		{"Go with Shutdown, captured", func(_ *testing.T, address string) []string {
			return []string{"--settle", "50ms", "--", harness.PlainBinary(), address}
		}, everyRequest, true},
		{"Node, captured", func(t *testing.T, address string) []string {
			return append([]string{"--settle", "50ms", "--"}, node(t, address)...)
		}, hello, true},
		{"nginx, captured", func(t *testing.T, address string) []string {
			return append([]string{"--settle", "50ms", "--stop-signal", "QUIT", "--"}, nginx(t, address)...)
		}, hello, true},
	}
}

// require skips what needs a right, or a program, that there is not.
func (a app) require(t *testing.T) {
	t.Helper()
	if a.foreign {
		requirement.Check(t, "farewell", farewell.Supported())
	}
	for name, program := range map[string]string{"Node": "node", "nginx": "nginx"} {
		if strings.HasPrefix(a.name, name) {
			_, err := exec.LookPath(program)
			requirement.Check(t, program, err)
		}
	}
}

func everyKind(c *load.Config) {
	c.Clients = harness.EveryKind
	c.Paths = map[load.Kind]string{load.Slow: "/slow?for=300ms"}
}

func everyRequest(c *load.Config) {
	everyKind(c)
	c.Clients = map[load.Kind]int{load.NewConnection: 2, load.KeepAliveGet: 4, load.KeepAlivePost: 4, load.Slow: 2}
}

// hello is of servers that give everybody the same answer.
func hello(c *load.Config) {
	c.Clients = map[load.Kind]int{load.NewConnection: 2, load.KeepAliveGet: 8}
	c.Answer = "hello\n"
	c.ThinkMin, c.ThinkMax = 10*time.Millisecond, 60*time.Millisecond
}

func node(t *testing.T, address string) []string {
	t.Helper()
	host, port, _ := strings.Cut(address, ":")
	script := `require("http").createServer((_, response) => response.end("hello\n")).listen(` + port + `, "` + host + `")`
	return []string{"node", "-e", script}
}

func nginx(t *testing.T, address string) []string {
	t.Helper()
	dir := t.TempDir()
	harness.Write(t, dir, "nginx.conf", `daemon off;
pid `+dir+`/nginx.pid;
error_log stderr;
worker_processes 2;
events {}
http {
	access_log off;
	client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
	server {
		listen `+address+`;
		location / { return 200 "hello\n"; }
	}
}
`, 0o644)
	return []string{"nginx", "-p", dir, "-c", "nginx.conf"}
}
