package systemd

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gracerun/grace/cmd/load"
	"github.com/gracerun/grace/internal/freeport"
	"github.com/gracerun/grace/internal/requirement"
	"github.com/gracerun/grace/test/harness"
)

// shop is an app under the unit files of docs/systemd, which are used as they are.
const shop = "grace@shop.service"

const (
	shopServer = "#!/bin/sh\nexec /srv/shop/server -take systemd\n"
	shopBroken = "#!/bin/sh\nexit 7\n"
)

// bootUnits boots a systemd with them. Env is the app's file in /etc/grace; changes
// are drop-ins, by unit.
func bootUnits(t *testing.T, usr, env, app string, changes map[string]string) *box {
	t.Helper()
	tree := t.TempDir()
	plant := func(path, text string, mode os.FileMode) {
		if err := os.MkdirAll(filepath.Join(tree, filepath.Dir(path)), 0o755); err != nil {
			t.Fatal(err)
		}
		harness.Write(t, tree, path, text, mode)
	}
	plant("etc/grace/shop.env", "COMMAND=/srv/shop/app\n"+env, 0o644)
	plant("srv/shop/app", app, 0o755)
	plant("usr/local/bin/README", "", 0o644)
	for _, name := range []string{"grace@.service", "grace@.socket"} {
		plant("etc/systemd/system/"+name, harness.Read(t, harness.Source(t, "docs/systemd/"+name)), 0o644)
	}
	for name, text := range changes {
		plant("etc/systemd/system/"+name+".d/change.conf", text, 0o644)
	}
	for path, target := range map[string]string{"usr/local/bin/grace": harness.GraceBinary(), "srv/shop/server": harness.AppBinary()} {
		if err := os.Symlink(target, filepath.Join(tree, path)); err != nil {
			t.Fatal(err)
		}
	}
	b := bootBoxOf(t, usr, tree)
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := exec.Command("journalctl", "--directory", b.path("root/run/log/journal"), "--no-pager", "--lines", "60", "--output", "cat").CombinedOutput()
			t.Logf("the journal:\n%s", out)
		}
	})
	return b
}

// put replaces the app by another version.
func (b *box) put(app string) {
	b.t.Helper()
	harness.Write(b.t, b.path("root/srv/shop"), "app", app, 0o755)
}

// fails runs a command in the box that must not succeed.
func (b *box) fails(args ...string) {
	b.t.Helper()
	if out, err := b.command(args...).CombinedOutput(); err == nil {
		b.t.Errorf("%s succeeds: %s", strings.Join(args, " "), out)
	}
}

// says waits: who has asked for an upgrade can have the answer before systemd has the status.
func (b *box) says(beginning string, more ...string) {
	b.t.Helper()
	harness.Until(b.t, fmt.Sprintf("the status is %q %q", beginning, more), func() bool {
		status := b.property(shop, "StatusText")
		lacks := func(part string) bool { return !strings.Contains(status, part) }
		return strings.HasPrefix(status, beginning) && !slices.ContainsFunc(more, lacks)
	})
}

func TestServiceUnit(t *testing.T) {
	t.Parallel()
	b := bootUnits(t, "", "GRACE_LISTEN=web=127.0.0.1:0\n", shopServer, nil)
	if says := b.do("systemd-analyze", "verify", "--man=no", shop, "grace@shop.socket"); says != "" {
		t.Errorf("systemd-analyze says: %s", says)
	}
	b.do("systemctl", "start", shop)
	b.says("generation 1 serves")
	if table := b.do("/usr/local/bin/grace", "list"); !strings.Contains(table, "shop") { // as root
		t.Errorf("grace list says: %s", table)
	}
	b.do("systemd-analyze", "security", "--no-pager", "--threshold=21", shop)
	s := b.follow(shop)
	addr := s.Address("web")
	const reloads = 5
	harness.UnderLoad(t, load.Config{Addr: addr, Clients: harness.EveryKind}, func() {
		for g := 2; g <= 1+reloads; g++ {
			b.do("systemctl", "reload", shop)
			b.says(fmt.Sprintf("generation %d serves", g))
		}
	})
	b.stopUnit(s)
}

// stopUnit wants the unit to end as it should.
func (b *box) stopUnit(s *harness.Grace) {
	b.t.Helper()
	b.do("systemctl", "stop", shop)
	s.AwaitLine(shop + ": Deactivated successfully.")
	if result := b.property(shop, "Result"); result != "success" {
		b.t.Errorf("the result is %s", result)
	}
	for _, trouble := range []string{"Killing process", "remains running", "timed out", "cannot notify the service manager", "no control socket", "cannot detect readiness", "last messages from NOTIFY_SOCKET"} {
		if strings.Contains(s.Output(), trouble) {
			b.t.Errorf("the journal says %q", trouble)
		}
	}
}

func TestStatusOfTheUnitDuringADrain(t *testing.T) {
	t.Parallel()
	b := bootUnits(t, "", "GRACE_LISTEN=web=127.0.0.1:0\n", shopServer, nil)
	b.do("systemctl", "start", shop)
	s := b.follow(shop)
	request := harness.BeginRequest(t, s.Address("web"))
	b.do("systemctl", "reload", shop)
	b.says("generation 2 serves; generation 1: draining (1 connection")
	request.Finish()
	harness.Until(t, "the drain has ended", func() bool { return b.property(shop, "StatusText") == "generation 2 serves" })
	b.stopUnit(s)
}

// The filter of the unit lets grace take part in the sockets that the app binds itself.
func TestServiceUnitOfACapturedApp(t *testing.T) {
	t.Parallel()
	addr := freeport.Address(t)
	b := bootUnits(t, "", "", "#!/bin/sh\nexec /srv/shop/server -addr "+addr+"\n", nil)
	b.do("systemctl", "start", shop)
	s := b.follow(shop)
	harness.UnderLoad(t, load.Config{Addr: addr, Clients: harness.EveryKind}, func() {
		for range 2 {
			b.do("systemctl", "reload", shop)
		}
	})
	b.says("generation 3 serves")
	b.stopUnit(s)
}

func TestReloadFailsAsTheUpgradeDoes(t *testing.T) {
	t.Parallel()
	addr := freeport.Address(t)
	b := bootUnits(t, "", "GRACE_LISTEN="+addr+"\n", shopBroken, map[string]string{shop: "[Service]\nRestart=no\n"})
	b.fails("systemctl", "start", shop)
	if status := b.property(shop, "ExecMainStatus"); status != "7" {
		t.Errorf("the first start ended with status %s", status)
	}
	b.says("stopping; first generation failed: ")
	b.put(shopServer)
	b.do("systemctl", "start", shop)
	s, pid := b.follow(shop), b.property(shop, "MainPID")
	harness.UnderLoad(t, load.Config{Addr: addr, Clients: harness.EveryKind}, func() {
		b.put(shopBroken)
		b.fails("systemctl", "reload", shop)
		b.put(shopServer)
		b.do("systemctl", "reload", shop)
		b.put(shopBroken)
		b.fails("systemctl", "reload", shop)
	})
	b.says("generation 3 serves", "upgrade to generation 4 failed: ")
	if state, main := b.property(shop, "ActiveState"), b.property(shop, "MainPID"); state != "active" || main != pid {
		t.Errorf("the unit is %s with process %s, and was with %s", state, main, pid)
	}
	b.stopUnit(s)
}

// awaitBeats takes longer than one may be late.
func (b *box) awaitBeats() {
	b.t.Helper()
	beats := map[string]bool{}
	harness.Until(b.t, "it gives signs of life", func() bool {
		beats[b.property(shop, "WatchdogTimestampMonotonic")] = true
		return len(beats) > 3
	})
	if restarts := b.property(shop, "NRestarts"); restarts != "0" {
		b.t.Errorf("%s restarts", restarts)
	}
}

func TestHungGraceIsReplaced(t *testing.T) {
	t.Parallel()
	b := bootUnits(t, "", "GRACE_LISTEN=web=127.0.0.1:0\n", shopServer, map[string]string{shop: "[Service]\nWatchdogSec=8s\n"})
	b.do("systemctl", "start", shop)
	b.awaitBeats()
	b.do("kill", "-STOP", b.property(shop, "MainPID"))
	harness.Until(t, "it is replaced", func() bool {
		return b.property(shop, "NRestarts") == "1" && b.property(shop, "ActiveState") == "active"
	})
	b.follow(shop).AwaitLine(shop + ": Watchdog timeout (limit 8s)!")
	b.do("systemctl", "stop", shop)
}

// Systemd follows a grace process that is replaced, and goes on to watch over it.
func TestUnitFollowsAReexec(t *testing.T) {
	t.Parallel()
	b := bootUnits(t, "", "GRACE_LISTEN=fd://web\n", shopServer, map[string]string{shop: "[Service]\nWatchdogSec=8s\n"})
	b.do("systemctl", "start", "grace@shop.socket", shop)
	path, pids := b.path("root/run/shop.sock"), map[string]bool{}
	harness.UnderLoad(t, load.Config{Network: "unix", Addr: path, Clients: harness.EveryKind}, func() {
		for g := 2; g <= 3; g++ {
			pids[b.property(shop, "MainPID")] = true
			b.do("/usr/local/bin/grace", "reexec", "shop")
			b.do("systemctl", "reload", shop)
			b.says(fmt.Sprintf("generation %d serves", g))
		}
		pids[b.property(shop, "MainPID")] = true
	})
	if len(pids) != 3 {
		t.Errorf("the main processes were %v", pids)
	}
	b.awaitBeats()
	b.stopUnit(b.follow(shop))
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the socket of the unit has gone: %v", err)
	}
}

// Systemd keeps the socket while no grace runs.
func TestSocketUnit(t *testing.T) {
	t.Parallel()
	b := bootUnits(t, "", "GRACE_LISTEN=fd://web\n", shopServer, nil)
	b.do("systemctl", "start", "grace@shop.socket")
	path := b.path("root/run/shop.sock")
	harness.UnderLoad(t, load.Config{Network: "unix", Addr: path, Clients: harness.EveryKind}, func() {
		harness.Until(t, "the first client has it started", func() bool { return b.property(shop, "ActiveState") == "active" })
		for range 3 {
			b.do("systemctl", "restart", shop)
			b.do("systemctl", "reload", shop)
		}
	})
	s := b.follow(shop)
	b.stopUnit(s)
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the socket of the unit has gone: %v", err)
	}
}

// reloadingSystemd is a /usr whose systemd has Type=notify-reload, or "" for the
// host's.
func reloadingSystemd(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("systemctl", "--version").Output()
	requirement.Check(t, "systemd", err)
	var version int
	if _, err := fmt.Sscanf(string(out), "systemd %d", &version); err == nil && version >= 253 {
		return ""
	}
	cache, err := os.UserCacheDir()
	requirement.Check(t, "systemd", err)
	usr := filepath.Join(cache, "grace/systemd/usr")
	if _, err := os.Stat(filepath.Join(usr, "lib/systemd/systemd")); err != nil {
		requirement.Check(t, "systemd", fmt.Errorf("Type=notify-reload needs systemd 253 (scripts/newer-systemd fetches one): %w", err))
	}
	return usr
}

// A reload is the signal here, and ends when the upgrade does, well or not.
func TestNotifyReload(t *testing.T) {
	t.Parallel()
	change := map[string]string{shop: harness.Read(t, harness.Source(t, "docs/systemd/notify-reload.conf"))}
	b := bootUnits(t, reloadingSystemd(t), "GRACE_LISTEN=web=127.0.0.1:0\n", shopServer, change)
	if says := b.do("systemd-analyze", "verify", "--man=no", shop); says != "" {
		t.Errorf("systemd-analyze says: %s", says)
	}
	b.do("systemctl", "start", shop)
	s := b.follow(shop)
	harness.UnderLoad(t, load.Config{Addr: s.Address("web"), Clients: harness.EveryKind}, func() {
		for g := 2; g <= 3; g++ {
			b.do("systemctl", "reload", shop)
			b.says(fmt.Sprintf("generation %d serves", g))
		}
		b.put(shopBroken)
		b.do("systemctl", "reload", shop)
		b.says("generation 3 serves", "upgrade to generation 4 failed")
	})
	b.stopUnit(s)
	harness.Write(t, b.path("root/etc/grace"), "shop.env", "COMMAND=/srv/shop/server\nGRACE_CAPTURE=off\n", 0o644)
	b.do("systemctl", "start", shop)
	b.do("systemctl", "reload", shop)
	b.says("generation 1 serves; upgrade refused: ")
}

// The rights that the page names are enough where the app is another user than grace,
// held and captured.
func TestServiceUnitOfAnotherUser(t *testing.T) {
	t.Parallel()
	_, row, found := strings.Cut(harness.Read(t, harness.Source(t, "docs/systemd.md")), "or `GRACE_USER` is set | ")
	row, _, _ = strings.Cut(row, " (the last")
	if !found {
		t.Fatal("the page does not tell what GRACE_USER needs")
	}
	change := "[Service]\n" + strings.ReplaceAll(strings.Trim(row, "`"), "`, `", "\n") + "\n"
	addr := freeport.Address(t)
	b := bootUnits(t, "", "GRACE_USER=nobody\nGRACE_LISTEN="+addr+"\n", shopServer, map[string]string{shop: change})
	b.do("systemctl", "start", shop)
	b.do("systemctl", "reload", shop)
	harness.Write(t, b.path("root/etc/grace"), "shop.env", "COMMAND=/srv/shop/server -addr "+addr+"\nGRACE_USER=nobody\n", 0o644)
	b.do("systemctl", "restart", shop)
	b.do("systemctl", "reload", shop)
	b.says("generation 2 serves")
	b.stopUnit(b.follow(shop))
}
