package takeover

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/gracerun/grace/cmd/load"
	"github.com/gracerun/grace/internal/requirement"
	"github.com/gracerun/grace/test/harness"
)

// pathWays are how the app gets a unix path.
var pathWays = map[string]func(path string) []string{
	"held": func(path string) []string {
		return []string{"--listen", "web=unix://" + path, "--", harness.AppBinary()}
	},
	"captured": func(path string) []string {
		return []string{"--capture-unix", path, "--", harness.AppBinary(), "-network", "unix", "-addr", path, "-remove"}
	},
}

// mayMount says whether a path can be kept from who removes it.
func mayMount(t *testing.T) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "file")
	harness.Touch(t, file)
	err := syscall.Mount(file, file, "", syscall.MS_BIND, "")
	requirement.Check(t, "mount", err)
	if err := syscall.Unmount(file, 0); err != nil {
		t.Fatal(err)
	}
}

const goAtPath = " -network unix -addr ADDR"

var pathServers = map[string]struct {
	command func() string
	files   []string
	flags   []string
	clients map[load.Kind]int
}{
	"Go, with package drain":           {command: func() string { return harness.AppBinary() + goAtPath }, flags: []string{"--empty", "0s"}, clients: harness.EveryKind},
	"Go":                               {command: func() string { return harness.AppBinary() + goAtPath + " -plain" }, clients: passing},
	"one that shuts its listener down": {command: func() string { return harness.AppBinary() + goAtPath + " -plain -shutdown-listener" }, clients: passing},
	"python, which dies of TERM":       {command: constant("/usr/bin/python3 FILES/blunt.py ADDR"), files: []string{"servers/blunt.py"}, clients: brief},
	"gunicorn": {
		command: constant("gunicorn --chdir FILES --bind unix:ADDR --workers 2 wsgi:app"), files: []string{"servers/wsgi.py"}, clients: passing,
	},
	"uvicorn": {command: constant("uvicorn --app-dir FILES --uds ADDR asgi:app"), files: []string{"servers/asgi.py"}, clients: passing},
	"nginx":   {command: constant("nginx -p FILES -e stderr -c nginx.conf"), files: []string{"servers/nginx.conf"}, clients: passing},
	"Node":    {command: constant("node FILES/http.js ADDR"), files: []string{"programs/http.js"}, clients: passing},
}

func startOldAtPath(t *testing.T, command string, files []string, change func(*exec.Cmd)) oldServer {
	t.Helper()
	return startOldAt(t, "unix", filepath.Join(harness.WorldFolder(t), "s"), command, "", files, change)
}

// Most of them remove the path when they end.
func TestTakenOverUnixPathsLoseNothing(t *testing.T) {
	for name, server := range pathServers {
		for way := range pathWays {
			t.Run(name+", "+way, func(t *testing.T) {
				mayMount(t)
				t.Parallel()
				old := startOldAtPath(t, server.command(), server.files, nil)
				if err := os.Chmod(old.addr, 0o646); err != nil {
					t.Fatal(err)
				}
				if err := os.Chown(old.addr, os.Getuid(), os.Getgid()); err != nil {
					t.Fatal(err)
				}
				harness.UnderLoad(t, load.Config{Network: "unix", Addr: old.addr, Clients: server.clients}, func() {
					s := harness.Start(t, append(append([]string{"--takeover", "--settle", "50ms"}, server.flags...), pathWays[way](old.addr)...)...)
					s.AwaitReady(1)
					if e := s.AwaitMessage("taking over"); e.PID != old.PID() {
						t.Errorf("process %d was found, not %d", e.PID, old.PID())
					}
					if e := s.AwaitGeneration("generation ended", 0); e.Why != "drained" {
						t.Errorf("the server has ended: %s", e.Why)
					}
					harness.CheckEnded(t, old.PID())
					if info, err := os.Lstat(old.addr); err != nil || info.Mode().Perm() != 0o646 {
						t.Errorf("the path has mode %v, %v", info, err)
					}
					s.Upgrade(2)
					s.AwaitGeneration("generation ended", 1)
					t.Cleanup(func() {
						s.Stop()
						checkNothingAt(t, old.addr)
					})
				})
			})
		}
	}
}

func checkNothingAt(t *testing.T, path string) {
	t.Helper()
	left, err := filepath.Glob(filepath.Dir(path) + "/*s*")
	if hidden, _ := filepath.Glob(filepath.Dir(path) + "/.s*"); len(left)+len(hidden) > 0 || err != nil {
		t.Errorf("left behind: %v, %v, %v", left, hidden, err)
	}
}

// unchanged wants the path to be that of the server alone, as it was before grace came.
func (o oldServer) unchanged(file os.FileInfo) {
	o.T.Helper()
	now, err := os.Lstat(o.addr)
	if err != nil || !os.SameFile(now, file) {
		o.T.Errorf("another file is at the path: %v, %v", now, err)
	}
	harness.AwaitListener(o.T, "unix", o.addr)
	o.Signal(syscall.SIGTERM)
	o.Wait()
	checkNothingAt(o.T, o.addr)
}

func startGoAtPath(t *testing.T) (oldServer, os.FileInfo) {
	t.Helper()
	old := startOldAtPath(t, harness.AppBinary()+goAtPath, nil, nil)
	file, err := os.Lstat(old.addr)
	if err != nil {
		t.Fatal(err)
	}
	return old, file
}

// The way back: the path leads to the server again where the app fails within --settle.
func TestServersAtAPathServeAgain(t *testing.T) {
	for way := range pathWays {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			old, file := startGoAtPath(t)
			everyone := load.Config{Network: "unix", Addr: old.addr, Clients: harness.EveryKind}
			s := harness.Start(t, append([]string{"--takeover", "--settle", "10m", "--empty", "0s"}, pathWays[way](old.addr)...)...)
			harness.UnderLoad(t, everyone, func() {
				s.AwaitReady(1)
				s.AwaitGeneration("generation replaced", 0)
			})
			// Who waits in the queue of the app in the very moment would be reset.
			if err := syscall.Kill(s.AwaitGeneration("instance started", 1).PID, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			s.AwaitMessage("upgrade undone, generation 0 serves again")
			harness.UnderLoad(t, everyone, func() {
				if status := s.Wait(); status == 0 {
					t.Error("grace has ended well")
				}
			})
			old.unchanged(file)
		})
	}
}

// Where the app does not come to serve, the server does not notice.
func TestServersAtAPathServeOn(t *testing.T) {
	for way := range pathWays {
		for name, flags := range map[string][]string{"at once": {"-fail", "/dev/null"}, "unready": {"-notify", "10m"}} {
			t.Run(way+", "+name, func(t *testing.T) {
				t.Parallel()
				old, file := startGoAtPath(t)
				harness.UnderLoad(t, load.Config{Network: "unix", Addr: old.addr, Clients: harness.EveryKind}, func() {
					s := harness.Start(t, append(append([]string{"--takeover", "--ready", "notify", "--ready-timeout", "1s"}, pathWays[way](old.addr)...), flags...)...)
					s.AwaitMessage("first generation failed")
					if status := s.Wait(); status == 0 {
						t.Error("grace has ended well")
					}
				})
				old.unchanged(file)
			})
		}
	}
}

// Grace is killed in the middle of a takeover, and the next one completes it, or leaves the server to itself.
func TestKilledDuringATakeoverOfAPath(t *testing.T) {
	for way := range pathWays {
		for point, await := range points {
			t.Run(way+", "+point, func(t *testing.T) {
				mayMount(t)
				t.Parallel()
				old, _ := startGoAtPath(t)
				harness.UnderLoad(t, load.Config{Network: "unix", Addr: old.addr, Clients: harness.FewClients}, func() {
					d := harness.StartToKill(t, append([]string{"--takeover", "--settle", "200ms", "--empty", "0s"}, pathWays[way](old.addr)...)...)
					await(d)
					d.Kill()
					d.StartAgain()
					e := d.Await("the takeover is complete, or has failed", func(e harness.Entry) bool {
						return e.Message == "first generation failed" || e.Message == "generation ended" && e.Generation == 0
					})
					if e.Message == "first generation failed" {
						d.Wait()
						harness.AwaitListener(t, "unix", old.addr)
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

func TestTakeoverOfAPathNeedsOneInstance(t *testing.T) {
	old, file := startGoAtPath(t)
	s := harness.Start(t, append([]string{"--takeover", "--instances", "2"}, pathWays["held"](old.addr)...)...)
	if s.Wait() == 0 || !strings.Contains(s.Output(), "a path leads to one process: use --instances 1") {
		t.Error("grace does not refuse it")
	}
	old.unchanged(file)
}
