package systemd

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gracerun/grace/cmd/load"
	"github.com/gracerun/grace/internal/freeport"
	"github.com/gracerun/grace/test/harness"
)

// killGrace ends the unit's grace process as the kernel does when memory is short, and returns when the next one has adopted the app.
func (b *box) killGrace(s *harness.Grace, times int) {
	b.t.Helper()
	before := b.property(shop, "MainPID")
	b.do("systemctl", "kill", "--signal", "KILL", "--kill-whom", "main", shop)
	s.AwaitTimes("app adopted", times, func(e harness.Entry) bool { return e.Message == "app adopted" })
	harness.Until(b.t, "the unit is active with another grace process", func() bool {
		return b.property(shop, "ActiveState") == "active" && b.property(shop, "MainPID") != before
	})
}

// kinds are the files in /etc/grace and the apps of the ways to get sockets.
var kinds = map[string]func(addr string) (env, app string){
	"held": func(addr string) (string, string) { return "GRACE_LISTEN=web=" + addr + "\n", shopServer },
	"captured": func(addr string) (string, string) {
		return "GRACE_SETTLE=50ms\n", "#!/bin/sh\nexec /srv/shop/server -addr " + addr + "\n"
	},
}

// The unit's app is another user's than the tests', has no capability, and no right to look into its processes is needed: what comes back
// systemd has kept.
func TestKilledGraceIsFollowedInTheUnit(t *testing.T) {
	for kind, of := range kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			addr := freeport.Address(t)
			env, app := of(addr)
			b := bootUnits(t, "", env, app, nil)
			b.do("systemctl", "start", shop)
			s := b.follow(shop)
			s.AwaitReady(1)
			harness.UnderLoad(t, load.Config{Addr: addr, Clients: harness.EveryKind}, func() {
				for times := 1; times <= 3; times++ {
					b.killGrace(s, times)
					b.do("systemctl", "reload", shop)
					b.says(fmt.Sprintf("generation %d serves", times+1))
				}
			})
			if n := strings.Count(s.Output(), `"message":"instance started"`); n != 4 {
				t.Errorf("%d instances were started", n)
			}
			b.do("systemctl", "stop", shop)
			if result := b.property(shop, "Result"); result != "success" {
				t.Errorf("the result is %s", result)
			}
			b.isEmpty()
		})
	}
}

// What a captured app asks the kernel while no grace process runs waits for the next one.
func TestCapturedAppGoesOnBindingAfterAKill(t *testing.T) {
	t.Parallel()
	addr, other := freeport.Address(t), freeport.Address(t)
	env, app := kinds["captured"](addr)
	b := bootUnits(t, "", env, app, nil)
	b.do("systemctl", "start", shop)
	s := b.follow(shop)
	s.AwaitReady(1)
	b.killGrace(s, 1)
	harness.Get(t, addr, "/listen?at="+other)
	harness.Get(t, other, "/")
	if status := b.do("/usr/local/bin/grace", "status", "shop"); !strings.Contains(status, other) || strings.Contains(status, "ENOSYS") {
		t.Errorf("the status is\n%s", status)
	}
	b.do("systemctl", "stop", shop)
}

// A unit that loses its runtime directory keeps the state nevertheless, and the app finds its NOTIFY_SOCKET again: systemd has removed the
// directory for it too.
func TestStateIsKeptWithoutTheRuntimeDirectory(t *testing.T) {
	for _, change := range []string{"RuntimeDirectoryPreserve=no", "RuntimeDirectory="} {
		for kind, of := range kinds {
			t.Run(change+", "+kind, func(t *testing.T) {
				t.Parallel()
				addr := freeport.Address(t)
				env, app := of(addr)
				b := bootUnits(t, "", env, app, map[string]string{shop: "[Service]\n" + change + "\n"})
				b.do("systemctl", "start", shop)
				s := b.follow(shop)
				s.AwaitReady(1)
				pid := fmt.Sprint(s.AwaitMessage("instance started").PID)
				_, path, _ := strings.Cut(b.do("sh", "-c", "tr '\\0' '\\n' </proc/"+pid+"/environ | grep ^NOTIFY_SOCKET="), "=")
				harness.UnderLoad(t, load.Config{Addr: addr, Clients: harness.EveryKind}, func() {
					for times := 1; times <= 2; times++ {
						b.killGrace(s, times)
						b.do("nsenter", "--target", pid, "--mount", "test", "-S", strings.TrimSpace(path))
					}
					b.do("systemctl", "reload", shop)
					b.says("generation 2 serves")
				})
				if n := strings.Count(s.Output(), `"message":"instance started"`); n != 2 {
					t.Errorf("%d instances were started", n)
				}
				b.do("systemctl", "stop", shop)
				b.isEmpty()
			})
		}
	}
}

// A restart ends the app. Systemd keeps the socket meanwhile, and clients wait.
func TestRestartOfTheUnitRefusesNobody(t *testing.T) {
	for kind, of := range kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			addr := freeport.Address(t)
			env, app := of(addr)
			b := bootUnits(t, "", env+"GRACE_EMPTY=0s\n", app, nil)
			b.do("systemctl", "start", shop)
			harness.UnderLoad(t, load.Config{Addr: addr, Clients: harness.EveryKind}, func() {
				for range 3 {
					b.do("systemctl", "restart", shop)
					b.says("generation 1 serves")
				}
			})
			b.stopUnit(b.follow(shop))
			b.isEmpty()
			if conn, err := net.Dial("tcp", addr); err == nil {
				t.Error("a client is not refused after the stop")
				conn.Close()
			}
		})
	}
}

// A released app runs on without grace, and systemd starts no other one. It keeps nothing either that a grace process could take for its own.
func TestReleaseInTheUnit(t *testing.T) {
	for kind, of := range kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			addr := freeport.Address(t)
			env, app := of(addr)
			b := bootUnits(t, "", env, app, nil)
			b.do("systemctl", "start", shop)
			s := b.follow(shop)
			s.AwaitReady(1)
			pid := fmt.Sprint(s.AwaitMessage("instance started").PID)
			harness.UnderLoad(t, load.Config{Addr: addr, Clients: harness.EveryKind}, func() {
				b.says("generation 1 serves")
				if said := b.do("/usr/local/bin/grace", "release", "shop"); !strings.Contains(said, "systemctl disable "+shop) {
					t.Errorf("release says %q", said)
				}
				harness.Until(t, "the unit is inactive", func() bool { return b.property(shop, "ActiveState") == "inactive" })
				for name, want := range map[string]string{"Result": "success", "NRestarts": "0", "NFileDescriptorStore": "0", "ExecMainStatus": "150"} {
					if got := b.property(shop, name); got != want {
						t.Errorf("%s is %s, not %s", name, got, want)
					}
				}
				b.fails("systemctl", "start", shop) // the app has the address
				b.do("kill", "-0", pid)
			})
			b.do("systemctl", "stop", shop)
			b.do("systemctl", "kill", "--kill-whom=all", "--signal=TERM", shop)
			b.isEmpty()
			b.do("systemctl", "start", shop)
			b.says("generation 1 serves")
			b.do("systemctl", "stop", shop)
		})
	}
}

// Systemd 254 and later may keep descriptors for good. A socket of a released app would be taken by the next start.
func TestReleaseEmptiesTheStore(t *testing.T) {
	t.Parallel()
	env, app := kinds["held"](freeport.Address(t))
	b := bootUnits(t, reloadingSystemd(t), env, app, map[string]string{shop: "[Service]\nFileDescriptorStorePreserve=yes\n"})
	b.do("systemctl", "start", shop)
	b.says("generation 1 serves")
	b.do("/usr/local/bin/grace", "release", "shop")
	harness.Until(t, "the unit is inactive", func() bool { return b.property(shop, "ActiveState") == "inactive" })
	if kept := b.property(shop, "NFileDescriptorStore"); kept != "0" {
		t.Errorf("%s descriptors are kept", kept)
	}
	b.do("systemctl", "kill", "--kill-whom=all", "--signal=KILL", shop)
	b.isEmpty()
}

// isEmpty wants no process of the unit to be left.
func (b *box) isEmpty() {
	b.t.Helper()
	harness.Until(b.t, "the unit's cgroup is empty", func() bool {
		processes, err := filepath.Glob(filepath.Join(b.cgroup, "system.slice/*/"+shop+"/cgroup.procs"))
		if err != nil || len(processes) == 0 {
			return err == nil
		}
		text, err := os.ReadFile(processes[0])
		return os.IsNotExist(err) || err == nil && strings.TrimSpace(string(text)) == ""
	})
}
