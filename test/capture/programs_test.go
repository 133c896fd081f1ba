package capture

import (
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gracerun/grace/cmd/load"
	"github.com/gracerun/grace/internal/freeport"
	"github.com/gracerun/grace/test/harness"
)

// program is a server that knows nothing of grace. PORT in its command is a free
// one, and what ends in .c, .java or .rs is compiled first.
type program struct {
	command string
	flags   []string
	hosts   []string // 127.0.0.1 unless others are named
	clients map[load.Kind]int
	warning string // that grace gives
}

// The clients of a server that speaks HTTP and of one that sends back what it
// gets. No client of either keeps a connection for longer than an exchange or two.
var (
	webClients  = map[load.Kind]int{load.NewConnection: 3, load.Slow: 1}
	echoClients = map[load.Kind]int{load.Echo: 3}
)

// Servers that die of their TERM, for the most part, lose nothing: it comes when
// nothing is left for them to do.
func TestProgramsThatBindByThemselvesLoseNothing(t *testing.T) {
	for name, p := range map[string]program{
		"Node": {command: "node http.js PORT", clients: webClients},
		"Node with a handler of TERM": {
			command: "node closing.js PORT", flags: []string{"--empty", "2s", "--drain-timeout", "1m"}, clients: harness.FewClients,
			warning: "gave up waiting for idle connections",
		},
		"Node cluster":                        {command: "node cluster.js PORT", clients: webClients},
		"Java HttpServer":                     {command: "Http.java PORT", clients: webClients},
		"Java ServerSocket":                   {command: "Sockets.java PORT", clients: echoClients},
		"Rust":                                {command: "echo.rs PORT", clients: echoClients},
		"C that shuts its listener down":      {command: "shutdown.c PORT", clients: echoClients},
		"C that calls epoll_ctl before bind":  {command: "epoll.c PORT", clients: echoClients},
		"C that forks for each connection":    {command: "fork.c PORT", clients: echoClients},
		"Go daemon that sends MAINPID":        {command: harness.AppBinary() + " -daemonize -addr 127.0.0.1:PORT", clients: webClients},
		"C with a second listener later":      {command: "two.c PORT 100", hosts: []string{"127.0.0.1", "::1"}, clients: echoClients},
		"C that binds dual-stack, and others": {command: "others.c PORT", hosts: []string{"127.0.0.1", "::1"}, clients: echoClients},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p.test(t)
		})
	}
}

func (p program) test(t *testing.T) {
	port := ownPort(t)
	arguments := append([]string{"--settle", "50ms"}, p.flags...)
	s := harness.Start(t, append(append(arguments, "--"), compiled(t, p.command, port)...)...)
	s.AwaitReady(1)
	hosts := p.hosts
	if hosts == nil {
		hosts = []string{"127.0.0.1"}
	}
	for _, host := range hosts {
		harness.AwaitListener(t, "tcp", net.JoinHostPort(host, port))
	}
	underAll(s, hosts, port, p.clients, func() { s.Upgrades(capturedUpgrades) })
	s.Stop()
	for _, e := range s.Entries() {
		if e.Message != "" && e.Level != "info" && e.Message != p.warning {
			t.Errorf("%s: %s: %s", e.Level, e.Message, e.Why)
		}
	}
}

// underAll sends the load to each of the hosts.
func underAll(s *harness.Grace, hosts []string, port string, clients map[load.Kind]int, do func()) {
	s.T.Helper()
	if len(hosts) == 0 {
		do()
		return
	}
	harness.UnderLoad(s.T, load.Config{Addr: net.JoinHostPort(hosts[0], port), Clients: clients}, func() { underAll(s, hosts[1:], port, clients, do) })
}

func ownPort(t *testing.T) string {
	t.Helper()
	_, port, err := net.SplitHostPort(freeport.Address(t))
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// compiled makes a command of what is in test/testdata/programs runnable.
func compiled(t *testing.T, command, port string) []string {
	t.Helper()
	words := strings.Fields(strings.ReplaceAll(command, "PORT", port))
	dir := harness.Testdata(t, "programs")
	out := t.TempDir()
	for i, word := range words {
		source, name := filepath.Join(dir, word), strings.TrimSuffix(word, filepath.Ext(word))
		switch filepath.Ext(word) {
		case ".js":
			harness.Need(t, words[0])
			words[i] = source
		case ".c":
			build(t, "gcc", "-O2", "-Wall", "-Werror", "-pthread", "-o", filepath.Join(out, name), source)
			words[i] = filepath.Join(out, name)
		case ".rs":
			build(t, "rustc", "-O", "-o", filepath.Join(out, name), source)
			words[i] = filepath.Join(out, name)
		case ".java":
			build(t, "javac", "-d", out, source)
			return append([]string{"java", "-XX:TieredStopAtLevel=1", "-cp", out, name}, words[1:]...)
		}
	}
	return words
}

func build(t *testing.T, compiler string, arguments ...string) {
	t.Helper()
	harness.Need(t, compiler)
	if out, err := exec.Command(compiler, arguments...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", compiler, strings.Join(arguments, " "), err, out)
	}
}
