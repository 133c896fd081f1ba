package takeover

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gracerun/grace/childproc"
	"github.com/gracerun/grace/cmd/load"
	"github.com/gracerun/grace/handoff/farewell"
	"github.com/gracerun/grace/internal/freeport"
	"github.com/gracerun/grace/internal/requirement"
	"github.com/gracerun/grace/test/harness"
)

// oldServer is one that runs before grace comes.
type oldServer struct {
	*harness.Process
	addr string
	dir  string // with its files
}

// backend is what a proxy that is taken over leads to.
var backend = sync.OnceValue(func() string {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			time.Sleep(300 * time.Millisecond)
		}
		io.WriteString(w, "hello\n")
	}))
	return server.Listener.Addr().String() // it ends with the tests
})

// startOld has words in the command and the files replaced: ADDR, HOST, PORT and FILES, a folder with the files of test/testdata.
func startOld(t *testing.T, command, options string, files []string, change func(*exec.Cmd)) oldServer {
	t.Helper()
	return startOldAt(t, "tcp", freeport.Address(t), command, options, files, change)
}

func startOldAt(t *testing.T, network, addr, command, options string, files []string, change func(*exec.Cmd)) oldServer {
	t.Helper()
	requirement.Check(t, "ptrace", mayTake())
	dir := harness.WorldFolder(t)
	host, port, _ := strings.Cut(addr, ":")
	written := addr // as nginx reads it
	if network == "unix" {
		written = "unix:" + addr
	}
	replace := strings.NewReplacer("listen ADDR", "listen "+written, "ADDR", addr, "HOST", host, "PORT", port, "FILES", dir, "OPTIONS", options, "BACKEND", backend())
	for _, file := range files {
		harness.Write(t, dir, filepath.Base(file), replace.Replace(harness.Read(t, harness.Testdata(t, file))), 0o644)
	}
	words := strings.Fields(replace.Replace(command))
	_, err := exec.LookPath(words[0])
	requirement.Check(t, filepath.Base(words[0]), err)
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Dir, cmd.SysProcAttr = dir, &syscall.SysProcAttr{Setpgid: true}
	if change != nil {
		change(cmd)
	}
	old := oldServer{harness.StartProcess(t, cmd), addr, dir}
	t.Cleanup(func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }) // what is left of it where the test has failed
	harness.AwaitListener(t, network, addr)
	return old
}

// ways are how the app gets the addresses.
var ways = map[string]func(addr string) []string{
	"held":     func(addr string) []string { return []string{"--listen", "web=" + addr, "--", harness.AppBinary()} },
	"captured": func(addr string) []string { return []string{"--", harness.AppBinary(), "-addr", addr} },
}

func start(t *testing.T, way string, addr string, flags ...string) *harness.Grace {
	t.Helper()
	return harness.Start(t, append(append([]string{"--takeover", "--settle", "50ms"}, flags...), ways[way](addr)...)...)
}

// Clients that do not keep their connections, which the servers do not ask to leave.
var (
	passing = map[load.Kind]int{load.NewConnection: 4, load.Slow: 2}
	brief   = map[load.Kind]int{load.NewConnection: 4}
)

var servers = map[string]struct {
	command func() string
	files   []string
	options string
	flags   []string
	clients map[load.Kind]int
}{
	"Go, with package drain": {
		command: func() string { return harness.AppBinary() + " -addr ADDR" }, flags: []string{"--empty", "0s"}, clients: harness.EveryKind,
	},
	"Go": {command: func() string { return harness.PlainBinary() + " ADDR" }, clients: passing},
	"one that shuts its listener down": {
		command: func() string { return harness.AppBinary() + " -addr ADDR -plain -shutdown-listener" }, clients: passing,
	},
	"python, which dies of TERM": {command: constant("/usr/bin/python3 -m http.server PORT --bind HOST"), clients: brief},
	"gunicorn": {
		command: constant("gunicorn --chdir FILES --bind ADDR --workers 2 wsgi:app"), files: []string{"servers/wsgi.py"}, clients: passing,
	},
	"nginx": {
		command: constant("nginx -p FILES -e stderr -c nginx.conf"), files: []string{"servers/nginx.conf"}, clients: passing,
	},
	"nginx, reuseport": {
		command: constant("nginx -p FILES -e stderr -c nginx.conf"), files: []string{"servers/nginx.conf"}, options: "reuseport", clients: passing,
	},
	"a cluster of Node": {
		command: constant("node FILES/cluster.js PORT"), files: []string{"programs/cluster.js", "programs/http.js"}, clients: passing,
	},
}

func constant(command string) func() string { return func() string { return command } }

func TestTakenOverServersLoseNothing(t *testing.T) {
	for name, server := range servers {
		for way := range ways {
			t.Run(name+", "+way, func(t *testing.T) {
				t.Parallel()
				old := startOld(t, server.command(), server.options, server.files, nil)
				harness.UnderLoad(t, load.Config{Addr: old.addr, Clients: server.clients}, func() {
					s := start(t, way, old.addr, server.flags...)
					s.AwaitReady(1)
					if e := s.AwaitMessage("taking over"); e.PID != old.PID() {
						t.Errorf("process %d was found, not %d", e.PID, old.PID())
					}
					if e := s.AwaitGeneration("generation ended", 0); e.Why != "drained" {
						t.Errorf("the server has ended: %s", e.Why)
					}
					harness.CheckEnded(t, old.PID())
					s.Upgrade(2)
					s.AwaitGeneration("generation ended", 1)
					t.Cleanup(s.Stop)
				})
			})
		}
	}
}

// Where the app does not serve, the server goes on as if nothing had been, and grace ends with a failure.
func TestServersServeOnWhereTheAppFails(t *testing.T) {
	for way := range ways {
		for name, flags := range map[string][]string{"at once": {"-fail", "/dev/null"}, "while it starts": {"-delay", "10m"}} {
			t.Run(way+", "+name, func(t *testing.T) {
				t.Parallel()
				old := startOld(t, harness.AppBinary()+" -addr ADDR", "", nil, nil)
				harness.UnderLoad(t, load.Config{Addr: old.addr, Clients: harness.EveryKind}, func() {
					s := harness.Start(t, append(append([]string{"--takeover", "--ready-timeout", "1s"}, ways[way](old.addr)...), flags...)...)
					s.AwaitMessage("first generation failed")
					if status := s.Wait(); status == 0 {
						t.Error("grace has ended well")
					}
				})
				old.servesAlone()
			})
		}
	}
}

// servesAlone wants the socket to be as it was, so that no other program can listen beside the server.
func (o oldServer) servesAlone() {
	o.T.Helper()
	if !childproc.Living(o.PID()) {
		o.T.Error("the server has ended")
	}
	harness.Get(o.T, o.addr, "/")
	second := exec.Command(harness.AppBinary(), "-addr", o.addr)
	if err := second.Run(); err == nil {
		o.T.Error("another server can bind the address")
	}
	o.Signal(syscall.SIGTERM)
	o.Wait()
}

// The way back: an app that fails within --settle has the server serve again.
func TestServersServeAgain(t *testing.T) {
	for way := range ways {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			old := startOld(t, harness.AppBinary()+" -addr ADDR", "", nil, nil)
			s := harness.Start(t, append([]string{"--takeover", "--settle", "10m", "--empty", "0s"}, ways[way](old.addr)...)...)
			harness.UnderLoad(t, load.Config{Addr: old.addr, Clients: harness.EveryKind}, func() {
				s.AwaitReady(1)
				s.AwaitGeneration("generation replaced", 0)
			})
			// Who waits in the queue of the app in the very moment would be reset.
			if err := syscall.Kill(s.AwaitGeneration("instance started", 1).PID, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			if e := s.AwaitMessage("upgrade undone"); !strings.Contains(e.Message, "generation 0 serves again") {
				t.Errorf("grace says %q", e.Message)
			}
			harness.UnderLoad(t, load.Config{Addr: old.addr, Clients: harness.EveryKind}, func() {
				if status := s.Wait(); status == 0 {
					t.Error("grace has ended well")
				}
			})
			old.servesAlone()
		})
	}
}

// A stop before the app serves leaves the server alone.
func TestStopBeforeTheAppServes(t *testing.T) {
	for way := range ways {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			old := startOld(t, harness.AppBinary()+" -addr ADDR", "", nil, nil)
			harness.UnderLoad(t, load.Config{Addr: old.addr, Clients: harness.EveryKind}, func() {
				s := harness.Start(t, append(append([]string{"--takeover", "--ready", "notify"}, ways[way](old.addr)...), "-notify", "10m")...)
				s.AwaitMessage("taking over")
				s.Stop()
			})
			old.servesAlone()
		})
	}
}

// Where clients can be asked to leave, no busy one loses a request with a server that cuts idle connections at its end.
func TestKeptConnectionsLeave(t *testing.T) {
	requirement.Check(t, "bpf", opens())
	for way := range ways {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			old := startOld(t, harness.PlainBinary()+" ADDR", "", nil, nil)
			clients := map[load.Kind]int{load.NewConnection: 2, load.KeepAliveGet: 12, load.KeepAlivePost: 8, load.Slow: 2}
			harness.UnderLoad(t, load.Config{Addr: old.addr, Clients: clients}, func() {
				s := start(t, way, old.addr)
				s.AwaitReady(1)
				if e := s.AwaitGeneration("generation ended", 0); e.Why != "drained" {
					t.Errorf("the server has ended: %s", e.Why)
				}
				t.Cleanup(s.Stop)
			})
		})
	}
}

func opens() error {
	a, err := farewell.Open()
	if err != nil {
		return err
	}
	return a.Close()
}

// points are moments of a takeover at which grace is killed.
var points = map[string]func(d *harness.KilledGrace){
	"it was found":      func(d *harness.KilledGrace) { d.AwaitMessage("taking over") },
	"the app is ready":  func(d *harness.KilledGrace) { d.AwaitReady(1) },
	"it can come back":  func(d *harness.KilledGrace) { d.AwaitGeneration("generation replaced", 0) },
	"it is told to end": func(d *harness.KilledGrace) { d.AwaitGeneration("upgraded", 1) },
}

// Grace is killed in the middle of a takeover, and the next one completes it; or the app has failed, as it could not bind while no
// grace process was there, and the server goes on.
func TestKilledDuringATakeover(t *testing.T) {
	for way := range ways {
		for point, await := range points {
			t.Run(way+", "+point, func(t *testing.T) {
				t.Parallel()
				old := startOld(t, harness.AppBinary()+" -addr ADDR", "", nil, nil)
				harness.UnderLoad(t, load.Config{Addr: old.addr, Clients: harness.FewClients}, func() {
					d := harness.StartToKill(t, append([]string{"--takeover", "--settle", "200ms", "--empty", "0s"}, ways[way](old.addr)...)...)
					await(d)
					d.Kill()
					d.StartAgain()
					e := d.Await("the takeover is complete, or has failed", func(e harness.Entry) bool {
						return e.Message == "first generation failed" || e.Message == "generation ended" && e.Generation == 0
					})
					if e.Message == "first generation failed" {
						d.Wait()
						harness.Get(t, old.addr, "/")
						return
					}
					harness.CheckEnded(t, old.PID())
					d.AwaitOneGeneration()
					t.Cleanup(d.End)
				})
			})
		}
	}
}

// All listeners of the server are taken over when the app binds the first one, and the app is ready when it has all.
func TestServersOfSeveralPortsAreTakenOver(t *testing.T) {
	second := freeport.Address(t)
	_, port, _ := strings.Cut(second, ":")
	program := harness.Testdata(t, "programs/several.js")
	old := startOld(t, "node "+program+" PORT "+port, "", nil, nil)
	harness.AwaitListener(t, "tcp", second)
	_, first, _ := strings.Cut(old.addr, ":")
	harness.UnderLoad(t, load.Config{Addr: old.addr, Clients: brief}, func() {
		harness.UnderLoad(t, load.Config{Addr: second, Clients: brief}, func() {
			s := harness.Start(t, "--takeover", "--settle", "50ms", "--ready-delay", "1m", "--", "node", program, first, port)
			s.AwaitReady(1)
			if e := s.AwaitGeneration("generation ended", 0); e.Why != "drained" {
				t.Errorf("the server has ended: %s", e.Why)
			}
			t.Cleanup(s.Stop)
		})
	})
}

func TestNothingToTakeOver(t *testing.T) {
	for way := range ways {
		addr := freeport.Address(t)
		s := start(t, way, addr)
		s.AwaitReady(1)
		harness.Get(t, addr, "/")
		s.Stop()
	}
}

// A server of another user keeps its sockets' owner, which those of the app get.
func TestServersOfOtherUsersAreTakenOver(t *testing.T) {
	harness.NeedRoot(t)
	for way := range ways {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			old := startOld(t, harness.AppBinary()+" -addr ADDR", "", nil, func(c *exec.Cmd) {
				c.SysProcAttr.Credential = &syscall.Credential{Uid: harness.Nobody, Gid: harness.Nobody}
			})
			harness.UnderLoad(t, load.Config{Addr: old.addr, Clients: harness.EveryKind}, func() {
				s := start(t, way, old.addr, "--empty", "0s")
				s.AwaitReady(1)
				s.AwaitGeneration("generation ended", 0)
				s.Upgrade(2)
				s.AwaitGeneration("generation ended", 1)
				t.Cleanup(s.Stop)
			})
		})
	}
}

func TestTakeoverIsRefused(t *testing.T) {
	if os.Getuid() == 0 {
		t.Run("without the rights", func(t *testing.T) {
			old := startOld(t, harness.AppBinary()+" -addr ADDR", "", nil, nil)
			s := harness.StartWith(t, harness.AsNobody, append([]string{"--takeover"}, ways["held"](old.addr)...)...)
			if s.Wait() == 0 || !strings.Contains(s.Output(), "cannot take over "+old.addr+": cannot see which process has it: the socket belongs to root") {
				t.Error("grace does not refuse it")
			}
			old.servesAlone()
		})
	}
	t.Run("where /proc hides it", func(t *testing.T) {
		harness.NeedRoot(t)
		old := startOld(t, harness.AppBinary()+" -addr ADDR", "", nil, nil)
		words := []string{"--mount", "sh", "-c", `mount -t proc -o hidepid=2 proc /proc || exec echo no hidepid
exec setpriv --reuid 65534 --regid 65534 --clear-groups "$0" "$@"`, harness.GraceBinary(), "run", "--log-format", "json", "--takeover"}
		cmd := exec.Command("unshare", append(words, ways["held"](old.addr)...)...)
		cmd.Dir = "/"
		s := harness.StartCommand(t, cmd)
		status := s.Wait()
		if strings.Contains(s.Output(), "no hidepid") {
			requirement.Check(t, "hidepid", errors.New(s.Output()))
		}
		if status == 0 || !strings.Contains(s.Output(), "the socket belongs to root, and /proc hides the processes of other users from grace (uid 65534)") {
			t.Error("grace does not refuse it")
		}
		old.servesAlone()
	})
	t.Run("from another grace process", func(t *testing.T) {
		addr := freeport.Address(t)
		first := harness.Start(t, ways["captured"](addr)...)
		first.AwaitReady(1)
		s := harness.Start(t, append([]string{"--takeover"}, ways["held"](addr)...)...)
		if s.Wait() == 0 || !strings.Contains(s.Output(), "another grace process runs it") {
			t.Error("grace does not refuse it")
		}
		first.Stop()
	})
}
