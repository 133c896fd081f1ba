package containers

import (
	"io"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/gracerun/grace/cmd/load"
	"github.com/gracerun/grace/handoff/farewell"
	"github.com/gracerun/grace/internal/requirement"
	"github.com/gracerun/grace/test/harness"
)

func TestContainerUpgradesAndStops(t *testing.T) {
	for name, test := range map[string]struct {
		change       func(harness.Spec)
		ready        []string
		app          []string
		uid          string
		notifySocket string
	}{
		"root":                {harness.AsRoot, nil, nil, "0", "@"},
		"root, writable /tmp": {harness.WithTmp, nil, nil, "0", "/tmp/"},
		"root, no capability": {harness.WithoutCapabilities, nil, nil, "0", "@"},
		"anybody":             {harness.AsAnybody, nil, nil, strconv.Itoa(harness.Anybody), "@"},
		"anybody, notify":     {harness.AsAnybody, []string{"--ready", "notify"}, []string{"-notify", "0s"}, strconv.Itoa(harness.Anybody), "@"},
	} {
		t.Run(name, func(t *testing.T) {
			arguments := append(append([]string{"--listen", "web=127.0.0.1:0"}, test.ready...), "--", "/app")
			c := harness.StartContainer(t, test.change, append(arguments, test.app...)...)
			addr := c.Address("web")
			c.AwaitReady(1)
			status := c.Proc("1/status")
			if !strings.HasPrefix(status, "Name:\tgrace\n") || !strings.Contains(status, "\nUid:\t"+test.uid+"\t") {
				t.Errorf("PID 1 is not grace of user %s: %s", test.uid, status)
			}
			if name != "root" && name != "root, writable /tmp" && !strings.Contains(status, "\nCapBnd:\t0000000000000000\n") {
				t.Errorf("PID 1 has capabilities: %s", status)
			}
			env := c.Proc(strconv.Itoa(c.AwaitMessage("instance started").PID) + "/environ")
			if !strings.Contains(env, "\x00NOTIFY_SOCKET="+test.notifySocket) {
				t.Errorf("NOTIFY_SOCKET is not %s...: %q", test.notifySocket, env)
			}
			if test.notifySocket == "@" { // nothing is writable, and it serves all the same
				c.AwaitMessage("no control socket")
			}
			harness.UnderLoad(t, load.Config{Addr: addr, Clients: harness.EveryKind}, func() { c.Upgrades(20) })
			c.Do("kill", c.Name, "TERM")
			c.Ends(0)
		})
	}
}

func TestContainerEndsWithTheStatusOfItsApp(t *testing.T) {
	for name, test := range map[string]struct {
		flags, app []string
		end        func(c *harness.Container)
		status     int
	}{
		"never ready": {nil, []string{"-fail", "/app"}, func(*harness.Container) {}, 3},
		"killed": {[]string{"--restart", "never"}, nil, func(c *harness.Container) {
			c.AwaitReady(1)
			kill := c.Runc("exec", c.Name, "/bin/kill", "-KILL", strconv.Itoa(c.AwaitMessage("instance started").PID))
			if out, err := kill.CombinedOutput(); err != nil {
				c.T.Logf("it ended with the container, as it may: %v: %s", err, out)
			}
		}, 137},
		"hangs on its drain": {[]string{"--drain-timeout", "300ms"}, []string{"-ignore-term"}, func(c *harness.Container) {
			c.AwaitReady(1)
			c.Do("kill", c.Name, "TERM")
		}, 137},
	} {
		t.Run(name, func(t *testing.T) {
			arguments := append(append([]string{"--listen", "web=127.0.0.1:0"}, test.flags...), "--", "/app")
			c := harness.StartContainer(t, harness.WithHost, append(arguments, test.app...)...)
			test.end(c)
			c.Ends(test.status)
		})
	}
}

// What a health check in the container leaves behind becomes a child of PID 1.
func TestContainerReapsOrphans(t *testing.T) {
	c := harness.StartContainer(t, harness.WithHost, "--listen", "web=127.0.0.1:0", "--", "/app")
	c.AwaitReady(1)
	c.Do("exec", c.Name, "/bin/sh", "-c", "for i in 1 2 3 4 5 6 7 8 9; do (setsid sleep 0.01 &); done")
	harness.Until(t, "every orphan is reaped", func() bool {
		return !strings.Contains(c.Do("exec", c.Name, "/bin/sh", "-c", "cat /proc/[0-9]*/stat 2>&1; true"), "(sleep)") // some end meanwhile
	})
	c.Upgrade(2)
	c.Signal(syscall.SIGTERM)
	c.Ends(0)
}

// A container is told to stop while it still gets clients, and is killed if it is not gone in time.
func TestContainerServesOnWhenToldToStop(t *testing.T) {
	t.Parallel()
	c := harness.StartContainer(t, harness.AsAnybody, "--listen", "web=127.0.0.1:0", "--drain-delay", "15s", "--", "/app")
	addr := c.Address("web")
	c.AwaitReady(1)
	harness.UnderLoad(t, load.Config{Addr: addr, Clients: map[load.Kind]int{load.NewConnection: 2}}, func() {
		c.Do("kill", c.Name, "TERM")
		c.AwaitMessage("still serving until --drain-delay is over")
		if body := harness.Get(t, addr, "/"); !strings.Contains(body, "Hello") {
			t.Errorf("got %q", body)
		}
	})
	c.Ends(0)
}

func TestContainerFinishesARequestWhenToldToStop(t *testing.T) {
	c := harness.StartContainer(t, harness.AsAnybody, "--listen", "web=127.0.0.1:0", "--", "/app")
	addr := c.Address("web")
	c.AwaitReady(1)
	response, err := http.Get("http://" + addr + "/slow?for=1s")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	c.Do("kill", c.Name, "TERM")
	c.AwaitMessage("stopping")
	if body, err := io.ReadAll(response.Body); err != nil || int64(len(body)) != response.ContentLength {
		t.Errorf("%d of %d bytes came: %v", len(body), response.ContentLength, err)
	}
	c.Ends(0)
}

// Who gives grace a volume at /run can ask it from outside, with an answer.
func TestContainerAnswers(t *testing.T) {
	c := harness.StartContainer(t, harness.Both(harness.AsAnybody, harness.WithRun), "--listen", "web=127.0.0.1:0", "--", "/app", "-fail", "/run/broken")
	addr := c.Address("web")
	c.AwaitReady(1)
	harness.UnderLoad(t, load.Config{Addr: addr, Clients: harness.EveryKind}, func() {
		for range 5 {
			c.Do("exec", c.Name, "/grace", "upgrade")
		}
		harness.Write(t, c.Path("root/run"), "broken", "", 0o644)
		if out, err := c.Runc("exec", c.Name, "/grace", "upgrade").CombinedOutput(); err == nil || !strings.Contains(string(out), "generation 6 still serves") {
			t.Errorf("%v: %s", err, out)
		}
	})
	if out, err := c.Runc("exec", "--user", "1:0", c.Name, "/grace", "upgrade").CombinedOutput(); err == nil {
		t.Errorf("another user may: %s", out)
	}
	c.Do("kill", c.Name, "TERM") // grace stop would end with the container it is in
	c.Ends(0)
}

// TestContainerWithoutTheRightToCapture: grace may not look into an app of another user.
// It serves without grace, or not at all if somebody insists.
func TestContainerWithoutTheRightToCapture(t *testing.T) {
	alone := func(spec harness.Spec) {
		linux := spec.At("linux")
		linux["namespaces"] = append(linux["namespaces"].([]harness.Spec), harness.Spec{"type": "network"})
	}
	for mode, status := range map[string]int{"auto": 0, "on": 1} {
		t.Run(mode, func(t *testing.T) {
			c := harness.StartContainer(t, harness.Both(harness.AsDocker(), alone), "--capture", mode, "--user", "12345", "--", "/app", "-addr", ":8081")
			if e := c.AwaitMessage("cannot capture the app's sockets"); !strings.Contains(e.Why, "CAP_SYS_PTRACE") || !strings.Contains(e.Why, "--listen") {
				t.Errorf("why: %s", e.Why)
			}
			if status == 0 {
				c.AwaitReady(1)
				c.Do("kill", c.Name, "TERM")
			}
			c.Ends(status)
		})
	}
}

// An app that knows nothing of grace: with the capabilities that the documentation names, and no others, its clients are
// asked to leave.
func TestContainerWithTheRightsForFarewell(t *testing.T) {
	requirement.Check(t, "bpf", farewell.Supported())
	c := harness.StartContainer(t, harness.Capable("CAP_BPF", "CAP_NET_ADMIN"), "--listen", "web=127.0.0.1:0", "--", "/plain", "fd:3")
	addr := c.Address("web")
	c.AwaitReady(1)
	clients := map[load.Kind]int{load.NewConnection: 2, load.KeepAliveGet: 8, load.KeepAlivePost: 4}
	harness.UnderLoad(t, load.Config{Addr: addr, Clients: clients}, func() {
		for generation := 2; generation <= 4; generation++ {
			c.Upgrade(generation)
			c.AwaitDrained()
		}
	})
	c.AwaitMessage("kept-alive connections have ended")
	c.Do("kill", c.Name, "TERM")
	c.Ends(0)
}

func TestContainerWithoutTheRightsForFarewell(t *testing.T) {
	c := harness.StartContainer(t, harness.AsDocker(), "--listen", "web=127.0.0.1:0", "--", "/plain", "fd:3")
	if e := c.AwaitMessage("clients are not asked to close kept-alive connections before the app does"); !strings.Contains(e.Why, "grace has no CAP_BPF and no CAP_NET_ADMIN") {
		t.Errorf("why: %s", e.Why)
	}
	c.AwaitReady(1)
	c.Upgrade(2)
	c.Do("kill", c.Name, "TERM")
	c.Ends(0)
}
