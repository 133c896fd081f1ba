//go:build linux

package main

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/gracerun/grace/cmd/load"
	"github.com/gracerun/grace/internal/requirement"
)

// container is a grace that is PID 1 of a runc container. Its file system is
// read-only and empty but for two static programs, and it shares the network with
// the clients. runc passes the signals that it gets on to PID 1, and ends with
// its status.
type container struct {
	*supervised
	t     *testing.T
	name  string
	state string // the folder in which runc keeps what it knows
}

// config is runc's config.json.
type config map[string]any

func (c config) at(key string) config { return c[key].(map[string]any) }

func (c config) mount(destination, kind, source string, options ...string) {
	c["mounts"] = append(c["mounts"].([]any), config{"destination": destination, "type": kind, "source": source, "options": options})
}

// contain runs grace in a container that was changed from what `runc spec` says.
// The thread is locked to the test, for Pdeathsig looks at the thread (prctl(2)).
func contain(t *testing.T, change func(config), arguments ...string) *container {
	t.Helper()
	requirement.Check(t, "runc", mayContain())
	c := &container{t: t, name: "grace-test-" + rand.Text(), state: t.TempDir()}
	t.Cleanup(c.checkRemoved)
	runtime.LockOSThread()
	c.supervised = graceWith(t, func(cmd *exec.Cmd) {
		bundle := makeBundle(t, func(spec config) {
			spec.at("process")["args"] = append([]string{"/grace"}, cmd.Args[1:]...)
			spec.at("linux")["cgroupsPath"] = "/" + c.name
			change(spec)
		})
		runc := c.runc("run", "--bundle", bundle, c.name)
		cmd.Path, cmd.Args = runc.Path, runc.Args
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGQUIT}
	}, arguments...)
	return c
}

func mayContain() error {
	if _, err := exec.LookPath("runc"); err != nil {
		return err
	}
	try := exec.Command("/bin/true")
	try.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID}
	if err := try.Run(); err != nil {
		return fmt.Errorf("cannot make namespaces (root can): %w", err)
	}
	return nil
}

func (c *container) runc(args ...string) *exec.Cmd {
	return exec.Command("runc", append([]string{"--root", c.state}, args...)...)
}

// do runs runc on the container and gives all that it printed.
func (c *container) do(args ...string) string {
	c.t.Helper()
	out, err := c.runc(args...).CombinedOutput()
	if err != nil {
		c.t.Fatalf("runc %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// checkRemoved wants nothing of a container that has ended.
func (c *container) checkRemoved() {
	if left := c.do("list", "--quiet"); left != "" {
		c.t.Errorf("a container is left: %s", left)
		c.do("delete", "--force", c.name)
	}
	for _, pattern := range []string{"/sys/fs/cgroup/", "/sys/fs/cgroup/*/"} {
		if left, err := filepath.Glob(pattern + c.name); err != nil || left != nil {
			c.t.Errorf("cgroups are left: %v, %v", left, err)
		}
	}
}

// staticPrograms is a folder with grace and the app, for a root without libraries.
var staticPrograms = sync.OnceValues(func() (string, error) {
	dir := filepath.Join(filepath.Dir(graceBinary), "static")
	build := exec.Command("go", "build", "-o", dir+"/", ".", "./testdata/app")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return dir, nil
})

// makeBundle makes a root folder and runc's config.
func makeBundle(t *testing.T, change func(config)) string {
	t.Helper()
	programs, err := staticPrograms()
	if err != nil {
		t.Fatal(err)
	}
	bundle := t.TempDir()
	root := filepath.Join(bundle, "rootfs")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"bin", "lib", "lib64"} { // which lead to nothing without the host's /usr
		if err := os.Symlink("usr/"+dir, filepath.Join(root, dir)); err != nil {
			t.Fatal(err)
		}
	}
	spec := readSpec(t, bundle)
	spec.at("process")["terminal"] = false
	spec.at("linux")["namespaces"] = []config{{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}}
	spec.mount("/grace", "bind", filepath.Join(programs, "grace"), "bind", "ro")
	spec.mount("/app", "bind", filepath.Join(programs, "app"), "bind", "ro")
	change(spec)
	text, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	write(t, bundle, "config.json", string(text), 0o644)
	return bundle
}

func readSpec(t *testing.T, bundle string) config {
	t.Helper()
	if out, err := exec.Command("runc", "spec", "--bundle", bundle).CombinedOutput(); err != nil {
		t.Fatalf("runc spec: %v: %s", err, out)
	}
	text, err := os.ReadFile(filepath.Join(bundle, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	var spec config
	if err := json.Unmarshal(text, &spec); err != nil {
		t.Fatal(err)
	}
	return spec
}

func asRoot(config) {}

// asAnybody is what clusters do that trust no image: a user of whom the image knows nothing, in the group of root.
func asAnybody(spec config) {
	spec.at("process")["user"] = config{"uid": anybody, "gid": 0}
	withoutCapabilities(spec)
}

const anybody = 1000650000 // of the range that OpenShift takes its users from

func withoutCapabilities(spec config) { delete(spec.at("process"), "capabilities") }

// withRun is a volume as clusters make them: all may write to it.
func withRun(spec config) { spec.mount("/run", "tmpfs", "tmpfs", "mode=0777") }

func withTmp(spec config) { spec.mount("/tmp", "tmpfs", "tmpfs", "mode=1777") }

// withHost adds the host's programs.
func withHost(spec config) { spec.mount("/usr", "bind", "/usr", "rbind", "ro") }

func TestContainerUpgradesAndStops(t *testing.T) {
	for name, test := range map[string]struct {
		change       func(config)
		ready        []string
		app          []string
		uid          string
		notifySocket string
	}{
		"root":                {asRoot, nil, nil, "0", "@"},
		"root, writable /tmp": {withTmp, nil, nil, "0", "/tmp/"},
		"root, no capability": {withoutCapabilities, nil, nil, "0", "@"},
		"anybody":             {asAnybody, nil, nil, strconv.Itoa(anybody), "@"},
		"anybody, notify":     {asAnybody, []string{"--ready", "notify"}, []string{"-notify", "0s"}, strconv.Itoa(anybody), "@"},
	} {
		t.Run(name, func(t *testing.T) {
			arguments := append(append([]string{"--listen", "web=127.0.0.1:0"}, test.ready...), "--", "/app")
			c := contain(t, test.change, append(arguments, test.app...)...)
			addr := c.address("web")
			c.ready(1)
			status := c.proc("1/status")
			if !strings.HasPrefix(status, "Name:\tgrace\n") || !strings.Contains(status, "\nUid:\t"+test.uid+"\t") {
				t.Errorf("PID 1 is not grace of user %s: %s", test.uid, status)
			}
			if name != "root" && name != "root, writable /tmp" && !strings.Contains(status, "\nCapBnd:\t0000000000000000\n") {
				t.Errorf("PID 1 has capabilities: %s", status)
			}
			env := c.proc(strconv.Itoa(c.awaitMessage("instance started").PID) + "/environ")
			if !strings.Contains(env, "\x00NOTIFY_SOCKET="+test.notifySocket) {
				t.Errorf("NOTIFY_SOCKET is not %s...: %q", test.notifySocket, env)
			}
			c.awaitMessage("no control socket") // and it serves all the same
			under(t, load.Config{Addr: addr, Clients: everyKind}, func() { c.upgrades(20) })
			c.do("kill", c.name, "TERM")
			if status := c.wait(); status != 0 {
				t.Errorf("status %d", status)
			}
		})
	}
}

// path is a file of PID 1 in the host's /proc; those below root are the container's own.
func (c *container) path(name string) string {
	c.t.Helper()
	var state struct{ PID int }
	if err := json.Unmarshal([]byte(c.do("state", c.name)), &state); err != nil {
		c.t.Fatal(err)
	}
	return filepath.Join("/proc", strconv.Itoa(state.PID), name)
}

// proc is a file of the container's own /proc, where its PID 1 is 1.
func (c *container) proc(name string) string {
	c.t.Helper()
	return read(c.t, c.path("root/proc/"+name))
}

func TestContainerEndsWithTheStatusOfItsApp(t *testing.T) {
	for name, test := range map[string]struct {
		flags, app []string
		end        func(c *container)
		status     int
	}{
		"never ready": {nil, []string{"-fail", "/app"}, func(*container) {}, 3},
		"killed": {[]string{"--restart", "never"}, nil, func(c *container) {
			c.ready(1)
			kill := c.runc("exec", c.name, "/bin/kill", "-KILL", strconv.Itoa(c.awaitMessage("instance started").PID))
			if out, err := kill.CombinedOutput(); err != nil {
				c.t.Logf("it ended with the container, as it may: %v: %s", err, out)
			}
		}, 137},
		"hangs on its drain": {[]string{"--drain-timeout", "300ms"}, []string{"-ignore-term"}, func(c *container) {
			c.ready(1)
			c.do("kill", c.name, "TERM")
		}, 137},
	} {
		t.Run(name, func(t *testing.T) {
			arguments := append(append([]string{"--listen", "web=127.0.0.1:0"}, test.flags...), "--", "/app")
			c := contain(t, withHost, append(arguments, test.app...)...)
			test.end(c)
			if status := c.wait(); status != test.status {
				t.Errorf("status %d, want %d", status, test.status)
			}
		})
	}
}

// What a health check in the container leaves behind becomes a child of PID 1.
func TestContainerReapsOrphans(t *testing.T) {
	c := contain(t, withHost, "--listen", "web=127.0.0.1:0", "--", "/app")
	c.ready(1)
	c.do("exec", c.name, "/bin/sh", "-c", "for i in 1 2 3 4 5 6 7 8 9; do (setsid sleep 0.01 &); done")
	until(t, "every orphan is reaped", func() bool {
		return !strings.Contains(c.do("exec", c.name, "/bin/sh", "-c", "cat /proc/[0-9]*/stat 2>&1; true"), "(sleep)") // some end meanwhile
	})
	c.upgrade(2)
	c.signal(syscall.SIGTERM)
	if status := c.wait(); status != 0 {
		t.Errorf("status %d", status)
	}
}

// A container is told to stop while it still gets clients, and is killed if it is not gone in time.
func TestContainerServesOnWhenToldToStop(t *testing.T) {
	t.Parallel()
	c := contain(t, asAnybody, "--listen", "web=127.0.0.1:0", "--drain-delay", "4s", "--", "/app")
	addr := c.address("web")
	c.ready(1)
	under(t, load.Config{Addr: addr, Clients: map[load.Kind]int{load.NewConnection: 2}}, func() {
		c.do("kill", c.name, "TERM")
		c.awaitMessage("serving on before the drain")
		if body := ask(t, addr, "/"); !strings.Contains(body, "Hello") {
			t.Errorf("got %q", body)
		}
	})
	if status := c.wait(); status != 0 {
		t.Errorf("status %d", status)
	}
}

func TestContainerFinishesARequestWhenToldToStop(t *testing.T) {
	c := contain(t, asAnybody, "--listen", "web=127.0.0.1:0", "--", "/app")
	addr := c.address("web")
	c.ready(1)
	response, err := http.Get("http://" + addr + "/slow?for=1s")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	c.do("kill", c.name, "TERM")
	c.awaitMessage("stopping")
	if body, err := io.ReadAll(response.Body); err != nil || int64(len(body)) != response.ContentLength {
		t.Errorf("%d of %d bytes came: %v", len(body), response.ContentLength, err)
	}
	if status := c.wait(); status != 0 {
		t.Errorf("status %d", status)
	}
}

// Who gives grace a volume at /run can ask it from outside, with an answer.
func TestContainerAnswers(t *testing.T) {
	c := contain(t, both(asAnybody, withRun), "--listen", "web=127.0.0.1:0", "--", "/app", "-fail", "/run/broken")
	addr := c.address("web")
	c.ready(1)
	under(t, load.Config{Addr: addr, Clients: everyKind}, func() {
		for range 5 {
			c.do("exec", c.name, "/grace", "upgrade")
		}
		write(t, c.path("root/run"), "broken", "", 0o644)
		if out, err := c.runc("exec", c.name, "/grace", "upgrade").CombinedOutput(); err == nil || !strings.Contains(string(out), "generation 6 still serves") {
			t.Errorf("%v: %s", err, out)
		}
	})
	if out, err := c.runc("exec", "--user", "1:0", c.name, "/grace", "upgrade").CombinedOutput(); err == nil {
		t.Errorf("another user may: %s", out)
	}
	c.do("kill", c.name, "TERM") // grace stop would end with the container it is in
	if status := c.wait(); status != 0 {
		t.Errorf("status %d", status)
	}
}

// TestContainerWithoutTheRightToCapture: grace may not look into an app of another user.
// It serves without grace, or not at all if somebody insists.
func TestContainerWithoutTheRightToCapture(t *testing.T) {
	alone := func(spec config) {
		linux := spec.at("linux")
		linux["namespaces"] = append(linux["namespaces"].([]config), config{"type": "network"})
	}
	for mode, status := range map[string]int{"auto": 0, "on": 1} {
		t.Run(mode, func(t *testing.T) {
			c := contain(t, both(asDocker(), alone), "--capture", mode, "--user", "12345", "--", "/app", "-addr", ":8081")
			if e := c.awaitMessage("cannot capture the app's sockets"); !strings.Contains(e.Why, "CAP_SYS_PTRACE") || !strings.Contains(e.Why, "--listen") {
				t.Errorf("why: %s", e.Why)
			}
			if status == 0 {
				c.ready(1)
				c.do("kill", c.name, "TERM")
			}
			if got := c.wait(); got != status {
				t.Errorf("status %d, want %d", got, status)
			}
		})
	}
}
