package systemd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gracerun/grace/cmd/load"
	"github.com/gracerun/grace/internal/freeport"
	"github.com/gracerun/grace/test/harness"
)

// serves is an app as people deploy them: a script at the path that the unit
// names, which takes the one socket by its number.
const serves = "#!/bin/sh\nexec /srv/app/current/server -take systemd\n"

// bootReadme boots a systemd with the README's unit as app.service, its programs
// where it says they are.
func bootReadme(t *testing.T, app string) *box {
	t.Helper()
	tree := t.TempDir()
	for _, dir := range []string{"etc/systemd/system", "srv/app/current", "usr/local/bin"} {
		if err := os.MkdirAll(filepath.Join(tree, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for path, target := range map[string]string{"usr/local/bin/grace": harness.GraceBinary(), "srv/app/current/server": harness.AppBinary()} {
		if err := os.Symlink(target, filepath.Join(tree, path)); err != nil {
			t.Fatal(err)
		}
	}
	harness.Write(t, tree, "etc/systemd/system/app.service", readmeUnit(t), 0o644)
	harness.Write(t, tree, "srv/app/current/app", app, 0o755)
	return bootBox(t, tree)
}

// readmeUnit is the README's unit, on any free port.
func readmeUnit(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(harness.Source(t, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, unit, _ := strings.Cut(string(text), "```ini\n[Service]\n")
	unit, _, found := strings.Cut(unit, "```")
	if !found || strings.Count(unit, "127.0.0.1:8080") != 1 {
		t.Fatal("the README has no unit that listens on 127.0.0.1:8080")
	}
	return "[Service]\n" + strings.Replace(unit, "127.0.0.1:8080", "127.0.0.1:0", 1)
}

func TestUnitOfTheReadme(t *testing.T) {
	b := bootReadme(t, serves)
	if says := b.do("systemd-analyze", "verify", "--man=no", "app.service"); says != "" {
		t.Errorf("systemd-analyze says: %s", says)
	}
	b.do("systemctl", "start", "app")
	s := b.follow("app")
	addr := s.Address("")
	s.AwaitReady(1)
	const reloads = 5
	harness.UnderLoad(t, load.Config{Addr: addr, Clients: harness.EveryKind}, func() {
		for g := 2; g <= 1+reloads; g++ {
			b.do("systemctl", "reload", "app")
			s.AwaitReady(g)
		}
	})
	b.do("systemctl", "stop", "app")
	s.AwaitGeneration("generation ended", 1+reloads)
	s.AwaitLine("app.service: Deactivated successfully.")
	s.AwaitLine("Stopped app.service.")
	for name, want := range map[string]string{"ActiveState": "inactive", "Result": "success"} {
		if got := b.property("app", name); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	for _, trouble := range []string{"Killing process", "remains running", "Failed", "timed out"} {
		if strings.Contains(s.Output(), trouble) {
			t.Errorf("the journal says %q", trouble)
		}
	}
	harness.Until(t, "the unit's cgroup is empty", func() bool {
		processes, err := os.ReadFile(filepath.Join(b.cgroup, "system.slice/app.service/cgroup.procs"))
		return os.IsNotExist(err) || err == nil && len(processes) == 0
	})
}

const socketUnit = "[Socket]\nListenStream=ADDR\n"

const activatedUnit = `[Unit]
StartLimitIntervalSec=0
[Service]
Type=notify
ExecStart=/usr/local/bin/server -addr ADDR
`

// The program that runs under grace elsewhere, with systemd in grace's place: a restart loses nothing, since systemd has
// the socket and the program drains.
func TestSameProgramUnderSocketActivation(t *testing.T) {
	addr, tree := freeport.Address(t), t.TempDir()
	for _, dir := range []string{"etc/systemd/system", "usr/local/bin"} {
		if err := os.MkdirAll(filepath.Join(tree, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(harness.ServerBinary(), filepath.Join(tree, "usr/local/bin/server")); err != nil {
		t.Fatal(err)
	}
	harness.Write(t, tree, "etc/systemd/system/app.socket", strings.Replace(socketUnit, "ADDR", addr, 1), 0o644)
	harness.Write(t, tree, "etc/systemd/system/app.service", strings.Replace(activatedUnit, "ADDR", addr, 1), 0o644)
	b := bootBox(t, tree)
	b.do("systemctl", "start", "app.socket")
	if state := b.property("app.service", "ActiveState"); state != "inactive" {
		t.Errorf("the service is %s before anybody has asked for it", state)
	}
	pids := map[string]bool{}
	harness.UnderLoad(t, load.Config{Addr: addr, Clients: harness.EveryKind}, func() {
		harness.Until(t, "the first client has the service started", func() bool { return b.property("app.service", "ActiveState") == "active" })
		for range 10 {
			pids[b.property("app.service", "MainPID")] = true
			b.do("systemctl", "restart", "app.service")
		}
	})
	if len(pids) != 10 {
		t.Errorf("there were the processes %v", pids)
	}
	b.do("systemctl", "stop", "app.socket", "app.service")
	const lives = 11
	var journal string
	harness.Until(t, "each of them ended well", func() bool {
		journal = b.do("journalctl", "--unit", "app.service", "--output", "cat")
		return strings.Count(journal, "drained in") == lives && strings.Count(journal, "Deactivated successfully") == lives
	})
	for _, trouble := range []string{"Killing process", "Main process exited", "timed out"} {
		if strings.Contains(journal, trouble) {
			t.Errorf("the journal says %q:\n%s", trouble, journal)
		}
	}
}
