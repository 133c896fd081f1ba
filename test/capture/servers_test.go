package capture

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gracerun/grace/cmd/load"
	"github.com/gracerun/grace/internal/freeport"
	"github.com/gracerun/grace/internal/redis"
	"github.com/gracerun/grace/internal/requirement"
	"github.com/gracerun/grace/test/harness"
)

// foreign is a server that people run, as it is: it binds its port by itself and
// knows nothing of grace.
type foreign struct {
	program string
	command string   // ADDR, HOST, PORT, FILES and BACKEND are replaced, in its file too
	file    string   // of test/testdata/servers
	options string   // for OPTIONS in the file
	flags   []string // of grace

	// kept are the clients that keep their connections busy over upgrades. Unless
	// asks is set it does not send them away with a response, but closes their
	// connections between two requests.
	kept map[load.Kind]int
	asks bool
}

// passing are clients that do not keep connections.
var passing = map[load.Kind]int{load.NewConnection: 4, load.Slow: 2}

var keeping = map[load.Kind]int{load.KeepAliveGet: 2, load.KeepAlivePost: 2}

var foreigners = map[string]foreign{
	"asyncio": {
		program: "/usr/bin/python3", command: "/usr/bin/python3 FILES/streams.py ADDR", file: "streams.py",
		kept: map[load.Kind]int{load.KeepAliveGet: 2, load.KeepAlivePost: 2, load.Stream: 2}, asks: true,
	},
	"gunicorn": {
		program: "gunicorn", command: "gunicorn --chdir FILES --bind ADDR --preload --workers 2 wsgi:app", file: "wsgi.py",
	},
	"uvicorn": {
		program: "uvicorn", command: "uvicorn --app-dir FILES --host HOST --port PORT --log-level warning asgi:app", file: "asgi.py",
		kept: keeping,
	},
	"nginx": {
		program: "nginx", command: "nginx -p FILES -e stderr -c nginx.conf", file: "nginx.conf", flags: []string{"--stop-signal", "QUIT"},
		kept: keeping,
	},
	"nginx, reuseport": {
		program: "nginx", command: "nginx -p FILES -e stderr -c nginx.conf", file: "nginx.conf", options: "reuseport", flags: []string{"--stop-signal", "QUIT"},
		kept: keeping,
	},
	"haproxy": {
		program: "haproxy", command: "haproxy -db -f FILES/haproxy.cfg", file: "haproxy.cfg", flags: []string{"--stop-signal", "USR1"},
		kept: keeping, asks: true,
	},
}

const redisServer = "redis-server --bind HOST --port PORT --save "

// runAs is how grace and the app come to be another user's.
type runAs struct {
	flags    []string
	process  *syscall.SysProcAttr
	upgrades int
}

var users = map[string]runAs{
	"as it is":            {upgrades: capturedUpgrades},
	"grace is nobody's":   {process: &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: harness.Nobody, Gid: harness.Nobody}}, upgrades: capturedUpgrades},
	"the app is nobody's": {flags: []string{"--user", "nobody", "--group", "nogroup"}, upgrades: 5},
}

func TestCapturedForeignServersLoseNothing(t *testing.T) {
	backend := harness.ServeBackend(t, "127.0.0.1:0")
	for name, server := range foreigners {
		for user, as := range users {
			t.Run(name+", "+user, func(t *testing.T) {
				t.Parallel()
				r := server.start(t, as, backend)
				passing := r.load(passing, false)
				r.upgradeUnder(as.upgrades, passing)
				checkNothingLost(t, passing)
				r.endWell(as.upgrades)
			})
		}
	}
}

// keptUpgrades are few, as each takes all of --empty.
const (
	keptUpgrades = 3
	keptFor      = 3 * time.Second
)

// TestCapturedServersAndKeptConnections: where clients are not asked to leave, a connection that is never idle keeps the
// old generation until --empty is over, and what becomes of it then is the
// server's doing.
func TestCapturedServersAndKeptConnections(t *testing.T) {
	backend := harness.ServeBackend(t, "127.0.0.1:0")
	for name, server := range foreigners {
		if server.kept == nil {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server.flags = append([]string{"--farewell", "0s", "--empty", keptFor.String(), "--drain-timeout", "1m"}, server.flags...)
			r := server.start(t, runAs{}, backend)
			passing, kept := r.load(passing, false), r.load(server.kept, !server.asks)
			r.upgradeUnder(keptUpgrades, passing, kept)
			checkNothingLost(t, passing)
			checkNothingLost(t, kept)
			for g := 1; g <= keptUpgrades; g++ {
				if held := r.AwaitGeneration("generation told to stop", g).Time.Sub(r.ReadySince(g + 1)); held < keptFor {
					t.Errorf("kept connections have held generation %d for %s, and not for %s", g, held, keptFor)
				}
			}
			r.endWell(keptUpgrades)
		})
	}
}

// captured is a foreign server that runs.
type captured struct {
	*harness.Grace
	addr    string
	lingers bool
}

func (f foreign) start(t *testing.T, as runAs, backend string) captured {
	t.Helper()
	_, err := exec.LookPath(f.program)
	requirement.Check(t, filepath.Base(f.program), err)
	if as.process != nil || as.flags != nil {
		requirement.Check(t, "root", mustBeRoot())
	}
	addr := freeport.Address(t)
	host, port, _ := strings.Cut(addr, ":")
	dir := harness.WorldFolder(t)
	replace := strings.NewReplacer("ADDR", addr, "HOST", host, "PORT", port, "FILES", dir, "BACKEND", backend, "OPTIONS", f.options)
	if f.file != "" {
		text, err := os.ReadFile(harness.Testdata(t, filepath.Join("servers", f.file)))
		if err != nil {
			t.Fatal(err)
		}
		harness.Write(t, dir, f.file, replace.Replace(string(text)), 0o644)
	}
	arguments := append([]string{"--settle", "50ms", "--ready-delay", "1m", "--chdir", dir}, append(f.flags, as.flags...)...)
	arguments = append(append(arguments, "--"), strings.Split(replace.Replace(f.command), " ")...)
	s := harness.StartWith(t, func(c *exec.Cmd) { c.Dir, c.SysProcAttr = dir, as.process }, arguments...)
	s.AwaitReady(1)
	return captured{s, addr, f.program == "nginx"}
}

func mustBeRoot() error {
	if os.Getuid() != 0 {
		return errors.New("only root can run something as nobody")
	}
	return nil
}

// load is of clients that never retry.
func (r captured) load(clients map[load.Kind]int, closesIdle bool) *load.Load {
	r.T.Helper()
	l, err := load.Start(r.T.Context(), load.Config{Addr: r.addr, Clients: clients, ThinkMax: 4 * time.Millisecond, Foreign: closesIdle, Lingers: r.lingers})
	if err != nil {
		r.T.Fatal(err)
	}
	return l
}

// upgradeUnder upgrades so that every generation has to answer clients of each
// load.
func (r captured) upgradeUnder(n int, loads ...*load.Load) {
	r.T.Helper()
	for g := 2; g <= n+1; g++ {
		r.Upgrade(g)
		for _, l := range loads {
			harness.AwaitAnswerOf(r.T, l, leaderOf(r.Grace, g))
		}
	}
}

func checkNothingLost(t *testing.T, l *load.Load) {
	t.Helper()
	tally := l.Stop()
	t.Logf("%d requests, %d failures, %d idle connections closed as a request came", tally.Requests(), tally.Failures(), tally.IdleClosed())
	if tally.Failures() > 0 {
		t.Errorf("%s", tally)
	}
}

// leader is the process group of a generation's only instance.
func leaderOf(s *harness.Grace, generation int) int {
	s.T.Helper()
	return s.AwaitGeneration("instance started", generation).PID
}

// endWell wants each of the generations that were replaced to have ended by
// itself, and so grace.
func (r captured) endWell(replaced int) {
	r.T.Helper()
	for g := 1; g <= replaced; g++ {
		if e := r.AwaitGeneration("generation ended", g); e.Why != "drained" {
			r.T.Errorf("generation %d ended: %s", g, e.Why)
		}
	}
	r.Stop()
}

// TestCapturedRedisLosesNothing: redis cuts what it has when it ends.
func TestCapturedRedisLosesNothing(t *testing.T) {
	for user, as := range users {
		t.Run(user, func(t *testing.T) {
			t.Parallel()
			r := foreign{program: "redis-server", command: redisServer}.start(t, as, "")
			l := redis.Start(r.addr, 1, 1, 1, 100, 100)
			idle := []*redis.Conn{}
			for g := 2; g <= capturedUpgrades+1; g++ {
				r.Upgrade(g)
				idle = append(idle, r.greet(t, g))
			}
			commands, err := l.Stop()
			t.Logf("%d times set and got", commands)
			if err != nil || commands == 0 {
				t.Errorf("%d times set and got, and then: %v", commands, err)
			}
			r.endWell(capturedUpgrades)
			for _, conn := range idle {
				checkClosed(t, conn)
			}
		})
	}
}

// exchangesUntilClear is how many a connection needs so that it cannot be a TLS
// client that waits for the first answer: such a one is given ten times as long.
const exchangesUntilClear = 10

// greet sets and gets on a new connection to a generation, and leaves it open.
func (r captured) greet(t *testing.T, generation int) *redis.Conn {
	t.Helper()
	conn, err := redis.Dial(r.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	for range exchangesUntilClear {
		if err := conn.SetAndGet("greeting", "hello"); err != nil {
			t.Fatal(err)
		}
	}
	if pid, err := conn.PID(); err != nil || pid != leaderOf(r.Grace, generation) {
		t.Errorf("process %d answers (%v), and not generation %d", pid, err, generation)
	}
	return conn
}

// TestIdleConnectionDoesNotHoldItsGeneration: of one that had a single exchange
// it is unclear whether its client waits still.
func TestIdleConnectionDoesNotHoldItsGeneration(t *testing.T) {
	t.Parallel()
	r := foreign{program: "redis-server", command: redisServer}.start(t, runAs{}, "")
	conn, err := redis.Dial(r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Do("PING"); err != nil {
		t.Fatal(err)
	}
	r.Upgrade(2)
	r.Await("the end of the wait for idle connections", func(e harness.Entry) bool {
		if strings.HasPrefix(e.Message, "gave up waiting") {
			t.Fatal("an idle connection has held its generation")
		}
		return strings.HasPrefix(e.Message, "generation told to stop")
	})
	checkClosed(t, conn)
	r.endWell(1)
}

// checkClosed wants an idle connection to have been ended as any server ends one.
func checkClosed(t *testing.T, conn *redis.Conn) {
	t.Helper()
	conn.SetDeadline(time.Now().Add(harness.Patience))
	if n, err := conn.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("an idle connection brings %d bytes and %v, and not its end", n, err)
	}
}
