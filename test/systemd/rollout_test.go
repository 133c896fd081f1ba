package systemd

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gracerun/grace/cmd/load"
	"github.com/gracerun/grace/internal/freeport"
	"github.com/gracerun/grace/internal/requirement"
	"github.com/gracerun/grace/test/harness"
)

// bootForRollouts boots a systemd with a unit as docs/containers/ansible.md has it, and the playbook with some releases.
func bootForRollouts(t *testing.T, addr string, releases map[string]string) *box {
	t.Helper()
	tree := t.TempDir()
	for _, dir := range []string{"etc/systemd/system", "srv/web", "usr/local/bin", "root/deploy"} {
		if err := os.MkdirAll(filepath.Join(tree, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for path, target := range map[string]string{"usr/local/bin/grace": harness.GraceBinary(), "usr/local/bin/server": harness.AppBinary()} {
		if err := os.Symlink(target, filepath.Join(tree, path)); err != nil {
			t.Fatal(err)
		}
	}
	page, playbook := harness.Read(t, harness.Source(t, "docs/containers/ansible.md")), harness.Read(t, harness.Source(t, "docs/containers/ansible/deploy.yml"))
	_, unit, _ := strings.Cut(page, "```ini\n")
	unit, _, found := strings.Cut(unit, "```")
	if !found || strings.Count(unit, "127.0.0.1:8080") != 1 {
		t.Fatal("the page has no unit that listens on 127.0.0.1:8080")
	}
	harness.Write(t, tree, "etc/systemd/system/web.service", strings.Replace(unit, "127.0.0.1:8080", addr, 1), 0o644)
	harness.Write(t, tree, "root/deploy/deploy.yml", playbook, 0o644)
	for release, program := range releases {
		dir := filepath.Join(tree, "root/deploy/releases", release)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		harness.Write(t, dir, "app", "#!/bin/sh\n"+program+"\n", 0o755)
	}
	return bootBox(t, tree)
}

// deploy plays the playbook for two hosts, which are both the box.
func (b *box) deploy(release string, flags ...string) (output string, err error) {
	c := b.command(append([]string{"env", "HOME=/root", "LC_ALL=C.UTF-8", "PATH=/usr/local/bin:/usr/bin:/usr/sbin", "ANSIBLE_NOCOLOR=1", "ANSIBLE_PIPELINING=1", "ANSIBLE_LOCALHOST_WARNING=false",
		"ansible-playbook", "--connection", "local", "-i", "one,two", "-e", "app=web", "-e", "release=" + release,
		"-e", "ansible_python_interpreter=/usr/bin/python3", "/root/deploy/deploy.yml"}, flags...)...)
	out, err := c.CombinedOutput()
	return string(out), err
}

func (b *box) runs() string {
	b.t.Helper()
	target, err := os.Readlink(b.path("root/srv/web/current"))
	if err != nil {
		b.t.Fatal(err)
	}
	return target
}

func TestAnsibleRollsOut(t *testing.T) {
	t.Parallel()
	_, err := exec.LookPath("ansible-playbook")
	requirement.Check(t, "ansible", err)
	addr := freeport.Address(t)
	const serves = "exec server -take systemd"
	b := bootForRollouts(t, addr, map[string]string{"1": serves, "2": serves, "broken": "echo oh no >&2; exit 7"})
	if out, err := b.deploy("1", "--limit", "one"); err != nil {
		t.Fatalf("the first release: %v\n%s", err, out)
	}
	s := b.follow("web")
	s.AwaitReady(1)
	harness.UnderLoad(t, load.Config{Addr: addr, Clients: harness.EveryKind}, func() {
		if out, err := b.deploy("2"); err != nil || b.runs() != "releases/2" {
			t.Errorf("%s runs: %v\n%s", b.runs(), err, out)
		}
		s.AwaitReady(3)
		out, err := b.deploy("broken")
		if err == nil || b.runs() != "releases/2" {
			t.Errorf("%s runs: %v\n%s", b.runs(), err, out)
		}
		for _, want := range []string{"broken does not serve, the old release still does", "generation 3 still serves", "one                        : ok="} {
			if !strings.Contains(out, want) {
				t.Errorf("it does not say %q:\n%s", want, out)
			}
		}
		if strings.Contains(out, "two ") {
			t.Errorf("the second host got what broke the first one:\n%s", out)
		}
	})
	b.do("systemctl", "stop", "web")
}
