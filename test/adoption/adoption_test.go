package adoption

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gracerun/grace/cmd/load"
	"github.com/gracerun/grace/internal/freeport"
	"github.com/gracerun/grace/internal/requirement"
	"github.com/gracerun/grace/test/harness"
)

// kinds are the ways in which an app gets its sockets.
var kinds = map[string]func(addr string) []string{
	"held": func(addr string) []string {
		return []string{"--listen", "web=" + addr, "--", harness.AppBinary()}
	},
	"captured": func(addr string) []string {
		return []string{"--settle", "50ms", "--empty", "0s", "--", harness.AppBinary(), "-addr", addr}
	},
	"steered": func(addr string) []string {
		return []string{"--settle", "50ms", "--empty", "0s", "--listen", "web=" + addr + "?steer=true", "--", harness.AppBinary()}
	},
}

// app puts flags behind those that the app has.
func app(arguments []string, flags ...string) []string { return append(arguments, flags...) }

// At each of these points of an upgrade grace is killed, and then the upgrade ends as failed or as done: one generation serves.
var points = map[string]struct {
	flags []string // of the app
	until func(d *harness.KilledGrace)
}{
	"before anything": {nil, func(d *harness.KilledGrace) { d.AwaitMessage("upgrade begins") }},
	"it starts":       {[]string{"-delay", "300ms"}, func(d *harness.KilledGrace) { d.AwaitGeneration("instance started", 2) }},
	"it is ready":     {nil, func(d *harness.KilledGrace) { d.AwaitGeneration("generation ready", 2) }},
	"the other one is told to stop": {nil, func(d *harness.KilledGrace) {
		d.Await("generation 1 drains", func(e harness.Entry) bool {
			return e.Generation == 1 && (e.Message == "generation draining" || e.Message == "generation told to stop")
		})
	}},
	"the other one has ended": {nil, func(d *harness.KilledGrace) { d.AwaitGeneration("instance ended", 1) }},
}

func TestKilledDuringAnUpgrade(t *testing.T) {
	for kind, arguments := range kinds {
		for point, p := range points {
			t.Run(kind+", "+point, func(t *testing.T) {
				addr := freeport.Address(t)
				d := harness.StartToKill(t, app(arguments(addr), p.flags...)...)
				d.AwaitReady(1)
				harness.UnderLoad(t, load.Config{Addr: addr, Clients: harness.FewClients}, func() {
					d.Signal(syscall.SIGHUP)
					p.until(d)
					d.Kill()
					d.Again()
					serves := d.AwaitOneGeneration()
					d.Command("upgrade")
					if now := d.AwaitOneGeneration(); now <= serves {
						t.Errorf("generation %d serves after an upgrade of %d", now, serves)
					}
				})
				d.End()
			})
		}
	}
}

func TestKilledGraceIsFollowed(t *testing.T) {
	for kind, arguments := range kinds {
		for _, instances := range []int{1, 4} {
			t.Run(fmt.Sprintf("%s, %d", kind, instances), func(t *testing.T) {
				addr, pidFile := freeport.Address(t), t.TempDir()+"/pid"
				d := harness.StartToKill(t, append([]string{"--instances", fmt.Sprint(instances), "--pid-file", pidFile}, arguments(addr)...)...)
				d.AwaitReady(1)
				fresh := harness.Surroundings(t, d.AwaitMessage("instance ready").PID)
				harness.UnderLoad(t, load.Config{Addr: addr, Clients: harness.EveryKind}, func() {
					for generation := 2; generation <= 4; generation++ {
						d.Kill()
						d.Again()
						if got := strings.TrimSpace(harness.Read(t, pidFile)); got != fmt.Sprint(d.PID()) {
							t.Errorf("the pid file says %s, not %d", got, d.PID())
						}
						d.AwaitStatus("serving, generation " + fmt.Sprint(generation-1))
						d.Command("upgrade")
						d.AwaitGeneration("upgraded", generation)
						d.AwaitGeneration("generation ended", generation-1)
					}
				})
				last := d.Await("an instance", func(e harness.Entry) bool { return e.Message == "instance ready" && e.Generation == 4 }).PID
				if later := harness.Surroundings(t, last); later != fresh {
					t.Errorf("an app was started with\n%s\nand by a grace process that has adopted one with\n%s", fresh, later)
				}
				d.End()
			})
		}
	}
}

// Paths are adopted as addresses are: clients of a unix socket go on, and an upgrade takes the path over.
func TestUnixPathsAreAdopted(t *testing.T) {
	for kind, arguments := range map[string]func(path string) []string{
		"held": func(path string) []string {
			return []string{"--listen", "web=unix://" + path, "--", harness.AppBinary()}
		},
		"steered": func(path string) []string {
			return []string{"--settle", "50ms", "--empty", "0s", "--listen", "web=unix://" + path + "?steer=true", "--", harness.AppBinary()}
		},
		"captured": func(path string) []string {
			return []string{"--settle", "50ms", "--empty", "0s", "--capture-unix", path, "--", harness.AppBinary(), "-network", "unix", "-addr", path, "-remove"}
		},
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			path := dir + "/s"
			d := harness.StartToKill(t, arguments(path)...)
			d.AwaitReady(1)
			harness.UnderLoad(t, load.Config{Network: "unix", Addr: path, Clients: harness.FewClients}, func() {
				for generation := 2; generation <= 3; generation++ {
					d.Kill()
					d.Again()
					d.AwaitStatus("serving, generation " + fmt.Sprint(generation-1))
					d.Command("upgrade")
					d.AwaitGeneration("generation ended", generation-1)
				}
			})
			d.End()
			if left, err := os.ReadDir(dir); len(left) > 0 || err != nil {
				t.Errorf("%v is left, %v", left, err)
			}
		})
	}
}

// The app does not accept its clients, which the stop waits for. Who adopts it lets new ones in again. It is not frozen: of what grace has
// stopped the kernel hangs up when grace dies (kill_orphaned_pgrp in kernel/exit.c).
func TestKilledWhileClientsAreTurnedAway(t *testing.T) {
	for network, address := range map[string]string{"tcp": "127.0.0.1:0", "unix": "unix://" + t.TempDir() + "/s"} {
		t.Run(network, func(t *testing.T) {
			harness.Need(t, "python3")
			t.Parallel()
			dir := t.TempDir()
			d := harness.StartToKill(t, "--chdir", dir, "--listen", "web="+address, "--ready", "delay", "--ready-delay", "10ms", "--farewell", "0s", "--drain-timeout", "10m",
				"--", "python3", harness.Testdata(t, "servers/blunt.py"), "fd", dir+"/go")
			at := d.Address("web")
			d.AwaitReady(1)
			waits := dial(t, network, at)
			d.Signal(syscall.SIGTERM)
			harness.AwaitTurnedAway(t, network, at)
			d.Kill()
			d.Again()
			d.AwaitStatus("serving, generation") // another one, if the state says that this one was to stop
			harness.Touch(t, dir+"/go")
			for _, conn := range []net.Conn{waits, dial(t, network, at)} {
				if err := conn.SetDeadline(time.Now().Add(harness.Patience)); err != nil {
					t.Fatal(err)
				}
				fmt.Fprint(conn, "GET / HTTP/1.0\r\n\r\n")
				if answer, err := io.ReadAll(conn); !strings.HasPrefix(string(answer), "HTTP/1.1 200") {
					t.Errorf("%q, %v", answer, err)
				}
			}
			d.End()
		})
	}
}

func dial(t *testing.T, network, at string) net.Conn {
	t.Helper()
	conn, err := net.DialTimeout(network, at, harness.Patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// What is due, or late, when grace is killed the next grace process does.
func TestRestartsAreAdopted(t *testing.T) {
	addr, broken := freeport.Address(t), t.TempDir()+"/broken"
	d := harness.StartToKill(t, "--instances", "2", "--listen", "web="+addr, "--", harness.AppBinary(), "-fail", broken)
	d.AwaitReady(1)
	harness.Touch(t, broken)
	d.Crash(1)
	d.AwaitTimes("restarting", 3, func(e harness.Entry) bool { return e.Message == "restarting" })
	d.Kill()
	if err := os.Remove(broken); err != nil {
		t.Fatal(err)
	}
	d.Again()
	d.AwaitMessage("instance ready")
	d.AwaitStatus("serving, generation 1")
	d.End()
}

// An app that ends while no grace process runs is started again.
func TestEndsBetweenTwoGraceProcessesAreSeen(t *testing.T) {
	for kind, arguments := range kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			addr := freeport.Address(t)
			d := harness.StartToKill(t, append([]string{"--instances", "2"}, arguments(addr)...)...)
			d.AwaitReady(1)
			crashed := d.AwaitMessage("instance ready").PID
			d.AwaitStatus("serving, generation 1")
			d.Kill()
			if err := syscall.Kill(crashed, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			d.Again()
			if e := d.AwaitMessage("instance ended"); e.PID != crashed {
				t.Errorf("process %d is said to have ended, not %d", e.PID, crashed)
			}
			d.AwaitMessage("instance ready")
			d.Command("upgrade")
			d.End()
		})
	}
}

// A first start that was not over is gone on with, or begun anew.
func TestKilledDuringTheFirstStart(t *testing.T) {
	for kind, arguments := range kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			addr := freeport.Address(t)
			d := harness.StartToKill(t, app(arguments(addr), "-delay", "200ms")...)
			d.AwaitMessage("instance started")
			d.Kill()
			d.StartAgain() // there may be nothing to adopt: a captured app that cannot bind any more ends
			d.AwaitReady(1)
			d.AwaitStatus("serving")
			harness.Get(t, addr, "/")
			d.End()
		})
	}
}

// Whenever grace is killed, in the middle of upgrades, starts and drains, no request fails, and one generation serves in the end.
func TestKilledAtAnyMoment(t *testing.T) {
	for kind, arguments := range kinds {
		for way, flags := range map[string][]string{"at once": {"--instances", "2"}, "one by one": {"--instances", "3", "--max-surge", "1"}} {
			t.Run(kind+", "+way, func(t *testing.T) {
				killAtAnyMoment(t, func(addr string) []string { return slices.Concat(flags, arguments(addr)) })
			})
		}
	}
}

func killAtAnyMoment(t *testing.T, arguments func(addr string) []string) {
	addr, seed := freeport.Address(t), uint64(time.Now().UnixNano())
	if given, err := strconv.ParseUint(os.Getenv("GRACE_TEST_SEED"), 10, 64); err == nil {
		seed = given
	}
	t.Logf("GRACE_TEST_SEED=%d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	d := harness.StartToKill(t, arguments(addr)...)
	d.AwaitReady(1)
	harness.UnderLoad(t, load.Config{Addr: addr, Clients: harness.FewClients}, func() {
		for range *kills {
			d.Signal(syscall.SIGHUP)
			time.Sleep(time.Duration(random.IntN(400)) * time.Millisecond)
			d.Kill()
			time.Sleep(time.Duration(random.IntN(100)) * time.Millisecond)
			d.Again()
		}
		d.AwaitOneGeneration()
	})
	d.End()
}

var kills = flag.Int("adoption.kills", 6, "how often TestKilledAtAnyMoment kills each grace process")

// Whoever asks for a grace process that was killed learns of its app, and of the command that adopts it.
func TestCommandsTellOfAnAbandonedApp(t *testing.T) {
	d := harness.StartToKill(t, "--instances", "2", "--listen", "web=127.0.0.1:0", "--", harness.AppBinary(), "-fail", "it's not there")
	d.AwaitReady(1)
	d.AwaitStatus("serving")
	pids := []int{d.AwaitMessage("instance started").PID, d.AwaitTimes("instance started", 2, func(e harness.Entry) bool { return e.Message == "instance started" }).PID}
	d.Kill()
	var adopting string
	for _, command := range []string{"upgrade", "rollback", "status"} {
		out, err := exec.Command(harness.GraceBinary(), command, d.Name).CombinedOutput()
		if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 4 {
			t.Errorf("grace %s: %v", command, err)
		}
		for _, part := range []string{fmt.Sprintf("no grace process is named %q", d.Name), fmt.Sprintf("grace process %d was killed", d.PID()), "generation 1 (pid ", "), current since ", strconv.Itoa(pids[0]), strconv.Itoa(pids[1])} {
			if !strings.Contains(string(out), part) {
				t.Errorf("grace %s says nothing of %q:\n%s", command, part, out)
			}
		}
		_, adopting, _ = strings.Cut(string(out), "this command adopts it:\n")
	}
	d.AgainBy("/bin/sh", "-c", strings.Replace(adopting, " && ", " && exec ", 1))
	d.AwaitStatus("serving, generation 1")
	d.End()
}

// What an app has lost it has lost for good: also the next grace process but one says so, and one that has taken over by a reexec.
func TestLostCaptureIsRemembered(t *testing.T) {
	d := harness.StartToKill(t, "--settle", "50ms", "--", harness.AppBinary(), "-addr", freeport.Address(t))
	d.AwaitReady(1)
	d.AwaitStatus("serving, generation 1")
	lost := func() bool { return strings.Contains(d.Command("status", "--json"), `"uncaptured"`) }
	for range 2 {
		d.Kill()
		d.Again()
		if !lost() {
			t.Error("the status does not say that the app cannot bind any more")
		}
	}
	d.Command("reexec")
	if !lost() {
		t.Error("after a reexec the status does not say that the app cannot bind any more")
	}
	d.Command("upgrade")
	harness.Until(t, "the status says so no more", func() bool { return !lost() })
	d.End()
}

// A grace process that may not look into the app touches nothing, says what it has found, and which commands end that.
func TestAppOfAnotherUserIsLeftAlone(t *testing.T) {
	if os.Geteuid() != 0 {
		requirement.Check(t, "root", errors.New("only root can start an app of another user"))
	}
	addr := freeport.Address(t)
	d := harness.StartToKill(t, "--user", "nobody", "--listen", "web="+addr, "--", harness.AppBinary())
	d.AwaitReady(1)
	pid := d.AwaitMessage("instance started").PID
	d.AwaitStatus("serving, generation 1")
	d.Kill()
	out, err := exec.Command("setpriv", "--bounding-set", "-sys_ptrace", "--inh-caps", "-sys_ptrace", harness.GraceBinary(), "run",
		"--name", d.Name, "--user", "nobody", "--listen", "web="+addr, "--", harness.AppBinary()).CombinedOutput()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("it ended with %v", err)
	}
	for _, part := range []string{fmt.Sprintf("process %d: permission denied", pid), fmt.Sprintf("generation 1 (pid %d)", pid), "sudo " + harness.GraceBinary() + " run --name " + d.Name, fmt.Sprintf("kill %d", pid)} {
		if !strings.Contains(string(out), part) {
			t.Errorf("it says nothing of %q:\n%s", part, out)
		}
	}
	harness.Get(t, addr, "/")
	d.Again()
	d.AwaitStatus("serving, generation 1")
	d.End()
}
