package cmd

import (
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
)

// unitIn is what unit prints in a directory.
func unitIn(t *testing.T, dir string, variables []string, args ...string) said {
	t.Helper()
	var out, err strings.Builder
	c := grace(append([]string{"unit"}, args...)...)
	c.Path = program(t)
	c.Args[0] = c.Path // the unit has it
	c.Dir, c.Stdout, c.Stderr = dir, &out, &err
	c.Env = append(append(c.Env, "PWD="+dir), variables...)
	return said{statusOf(t, c), out.String(), err.String()}
}

// program is grace itself.
func program(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestUnit(t *testing.T) {
	dir := t.TempDir()
	shop := filepath.Join(dir, "my shop")
	if err := os.Mkdir(shop, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(shop, "app"), nil, 0o755); err != nil {
		t.Fatal(err)
	}
	got := unitIn(t, shop, []string{"GRACE_INSTANCES=4"}, "--listen", "web=:8080", "--listen=unix:///run/shop/s?mode=0660", "--dialect", "systemd,nginx",
		"--env-file", "env", "--stop-group", "--evict=false", "--", "./app", "$HOME", "100%", "two words")
	if got.status != 0 {
		t.Fatalf("%+v", got)
	}
	for _, want := range []string{
		" run --name my-shop \\\n    --chdir \"" + shop + "\" \\\n    --listen web=:8080 \\\n    --listen unix:///run/shop/s?mode=0660 \\\n" +
			"    --dialect systemd \\\n    --dialect nginx \\\n    --env-file \"" + shop + "/env\" \\\n    --stop-group \\\n    --evict=false \\\n" +
			"    --instances 4 \\\n    -- \"" + shop + "/app\" $$HOME 100%% \"two words\"\n",
		" upgrade my-shop\n", "\nRuntimeDirectory=grace/my-shop shop\n", "\nProtectHome=",
	} {
		if !strings.Contains(got.out, want) {
			t.Errorf("the unit does not have %s:\n%s", want, got.out)
		}
	}
	for _, hidden := range []string{shop + "/app", program(t)} {
		if strings.HasPrefix(hidden, "/tmp/") && !strings.Contains(got.err, hidden+" is hidden in the unit (PrivateTmp=yes)") {
			t.Errorf("%s is hidden: said %s", hidden, got.err)
		}
	}
}

func TestUnitLooksTheCommandUp(t *testing.T) {
	dir := t.TempDir()
	app := filepath.Join(dir, "my-app")
	if err := os.WriteFile(app, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	if got := unitIn(t, "/", []string{"PATH=" + dir}, "--name=x", "--", "my-app"); !strings.Contains(got.out, "    -- "+app+"\n") {
		t.Errorf("%+v", got)
	}
	if got := unitIn(t, "/", []string{"PATH=" + dir}, "--", "other"); !strings.Contains(got.out, "    -- other\n") || !strings.Contains(got.err, `grace: cannot find command "other" in PATH`) {
		t.Errorf("%+v", got)
	}
}

func TestUserOfAUnit(t *testing.T) {
	own, err := user.Current()
	if err != nil {
		t.Skipf("this user has no name: %v", err)
	}
	mine := "\nUser=" + own.Username + "\n"
	if own.Uid == "0" {
		mine = "\nDynamicUser=yes\n"
	}
	for _, c := range []struct {
		flags []string
		want  string
	}{
		{nil, mine},
		{[]string{"--user=nobody"}, "CAP_SETUID CAP_SETGID CAP_CHOWN CAP_KILL CAP_SYS_PTRACE CAP_DAC_OVERRIDE CAP_BPF"},
		{[]string{"--user=nobody", "--farewell=0s"}, " CAP_DAC_OVERRIDE\n"},
		{[]string{"--takeover", "--name=x"}, "    --takeover=safe \\\n"},
	} {
		if got := unitIn(t, "/", nil, append(c.flags, "--", "/bin/sh")...); got.status != 0 || !strings.Contains(got.out, c.want) {
			t.Errorf("%v: no %q in %+v", c.flags, c.want, got)
		}
	}
}

func TestUnitOfAWrongCommandLine(t *testing.T) {
	if got := unitIn(t, "/", nil, "--instances=0", "--", "/bin/sh"); got.status != statusUsage || got.out != "" {
		t.Errorf("%+v", got)
	}
}
