package systemd

import (
	"fmt"
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

// A restart ends the app. Systemd keeps the socket meanwhile, and clients wait.
func TestRestartOfTheUnitRefusesNobody(t *testing.T) {
	t.Parallel()
	addr := freeport.Address(t)
	b := bootUnits(t, "", "GRACE_LISTEN=web="+addr+"\n", shopServer, nil)
	b.do("systemctl", "start", shop)
	harness.UnderLoad(t, load.Config{Addr: addr, Clients: harness.EveryKind}, func() {
		for range 3 {
			b.do("systemctl", "restart", shop)
			b.says("generation 1 serves")
		}
	})
	b.stopUnit(b.follow(shop))
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
