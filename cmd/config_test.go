package cmd

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
)

// inFile is a file for --config.
func inFile(t *testing.T, text string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "grace.toml")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

const goodConfig = `# a comment
command = ["sh", "-c", 'echo "$0"']
listen = [
  "web=127.0.0.1:0", # the first
  "127.0.0.1:0",
]
drain-timeout = "1m"
instances = 0x2
stop-group = true
dialect = "systemd,einhorn"
on = ['failed=echo $GRACE_WHY']
umask = "027"
takeover-signal = 'QUIT'
`

func TestConfigGivesFlags(t *testing.T) {
	file, err := readConfig(inFile(t, goodConfig))
	if err != nil {
		t.Fatal(err)
	}
	flags := newFlags()
	if err := flags.Set("drain-timeout", "5s"); err != nil {
		t.Fatal(err)
	}
	set, err := file.apply(flags)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"listen", "instances", "stop-group", "dialect", "on", "umask", "takeover-signal"}; !reflect.DeepEqual(set, want) {
		t.Errorf("set %q, want %q", set, want)
	}
	for name, want := range map[string]string{
		"listen": "[web=127.0.0.1:0,127.0.0.1:0]", "drain-timeout": (5 * time.Second).String(), "instances": "2", "stop-group": "true",
		"dialect": "[systemd,einhorn]", "on": "[failed=echo $GRACE_WHY]", "umask": "027", "takeover-signal": "QUIT",
	} {
		if got := flags.Lookup(name).Value.String(); got != want {
			t.Errorf("--%s is %q, want %q", name, got, want)
		}
	}
	if got, want := file.command(), []string{"sh", "-c", `echo "$0"`}; !reflect.DeepEqual(got, want) {
		t.Errorf("the command is %q, want %q", got, want)
	}
}

// Every flag but the two that make no sense in a file can be set there.
func TestEveryFlagIsAKey(t *testing.T) {
	var names []string
	newFlags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	if len(names) < 30 {
		t.Fatalf("flags: %q", names)
	}
	for _, name := range names {
		if notInFile(name) {
			continue
		}
		value, want := sample(newFlags().Lookup(name))
		if strings.HasPrefix(want, "[") {
			value, want = "one", "[one]"
		}
		file, err := parseConfig("f", []byte(name+` = "`+value+`"`))
		flags := newFlags()
		if err == nil {
			_, err = file.apply(flags)
		}
		if got := flags.Lookup(name).Value.String(); err != nil || got != want {
			t.Errorf("%s: %q, want %q (%v)", name, got, want, err)
		}
	}
}

func TestBadConfigs(t *testing.T) {
	for name, c := range map[string]struct{ text, says string }{
		"no TOML":           {"instances = 2\nlisten = [\n", "grace.toml:2: "},
		"twice":             {"instances = 2\n\ninstances = 3\n", "grace.toml:3: "},
		"unknown":           {"\nlisen = ':80'\n", `grace.toml:2: unknown key "lisen" (did you mean listen?)`},
		"unknown and far":   {"colour = 'red'\n", `grace.toml:1: unknown key "colour" (the keys are the flags of grace run, and command)`},
		"underscore":        {"drain_timeout = '1m'\n", `grace.toml:1: unknown key "drain_timeout" (did you mean drain-timeout?)`},
		"two are wrong":     {"lisen = ':80'\ninstances = 'two'\n", "grace.toml:2: invalid argument \"two\" for \"--instances\""},
		"a section":         {"[run]\ninstances = 2\n", "grace.toml:1: [run] is not valid: the file has no sections"},
		"a dotted key":      {"run.instances = 2\n", `grace.toml:1: unknown key "run.instances"`},
		"a list for one":    {"instances = [2]\n", "grace.toml:1: instances takes one value, not a list"},
		"a table":           {"listen = {web = ':80'}\n", "grace.toml:1: listen: use a string, a number,"},
		"a date":            {"drain-timeout = 2026-05-04\n", "grace.toml:1: drain-timeout: use a string, a number,"},
		"a list of lists":   {"listen = [\n['x']]\n", "grace.toml:1: listen: use a string, a number,"},
		"a wait of numbers": {"\ndrain-timeout = 30\n", "grace.toml:2: invalid argument \"30\" for \"--drain-timeout\""},
		"a command in one":  {"command = 'sh -c true'\n", "grace.toml:1: command must be a list of words"},
		"itself":            {"config = 'x'\n", `grace.toml:1: unknown key "config"`},
		"a bad value":       {"umask = '027'\nrestart = 'maybe'\n", `grace.toml:2: --restart "maybe": use on-failure,`},
		"a bad address":     {"listen = [\n':80',\n'sctp://:1',\n]\n", `grace.toml:3: cannot read listen address "sctp://:1"`},
		"a bad dialect":     {"\n\ndialect = 'upstart'\n", `grace.toml:3: cannot use dialect "upstart"`},
		"a bad pair":        {"\ndrain-timeout = '0s'\n", `grace.toml:2: --ready-timeout and --drain-timeout must be positive`},
		"a bad log":         {"log-level = 'loud'\n", `grace.toml:1: --log-level "loud": use debug,`},
		"no command":        {"instances = 2\n", "no command to run"},
	} {
		t.Run(name, func(t *testing.T) {
			path := inFile(t, c.text)
			if !strings.Contains(c.text, "command") && name != "no command" {
				path = inFile(t, c.text+"\ncommand = ['sh']\n")
			}
			if name == "a section" || name == "no TOML" {
				path = inFile(t, c.text)
			}
			status, said := runGrace(t, nil, "run", "--config", path)
			checkRefusal(t, status, said, c.says)
			if got := say(t, "check", "--config", path); got.status != statusFailed || got.err != said || got.out != "" {
				t.Errorf("check says %+v, run said %s", got, said)
			}
		})
	}
}

func TestGoodConfigIsChecked(t *testing.T) {
	path := inFile(t, "command = ['sh', '-c', 'exit 7']\nrestart = 'never'\nlog-format = 'text'\n")
	if got := say(t, "check", "--config", path); got != (said{out: "ok\n"}) {
		t.Errorf("check says %+v", got)
	}
	if status, said := runGrace(t, nil, "run", "--config", path); status != 7 || strings.Contains(said, `{"level"`) {
		t.Errorf("status %d, want 7 and text:\n%s", status, said)
	}
	if status, said := runGrace(t, []string{"GRACE_CONFIG=" + path, "GRACE_LOG_FORMAT=json"}, "run", "sh", "-c", "exit 8"); status != 8 || !strings.Contains(said, `{"level"`) {
		t.Errorf("status %d, want 8 and JSON:\n%s", status, said)
	}
}

// check looks for what a start needs.
func TestCheckLooksTheCommandUp(t *testing.T) {
	for _, c := range []struct{ args, says string }{
		{"-- no-such-command", `cannot find command "no-such-command" in PATH`},
		{"--user no-such-user -- sh", `there is no such user`},
		{"--chdir /nowhere -- sh", `cannot enter directory /nowhere`},
		{"--env-file /nowhere -- sh", `cannot read --env-file`},
		{"--config /nowhere", "cannot read --config: open /nowhere"},
	} {
		if got := say(t, append([]string{"check"}, strings.Fields(c.args)...)...); got.status != statusFailed || !strings.Contains(got.err, c.says) {
			t.Errorf("%s: %+v does not say %s", c.args, got, c.says)
		}
	}
}

func TestUnitOfAConfig(t *testing.T) {
	path := inFile(t, "command = ['sh']\nlisten = ['unix:///run/shop/s']\ndrain-timeout = '1m'\n")
	got := unitIn(t, "/", nil, "--config", path, "--name", "x", "--drain-timeout=5s")
	want := " run --name x \\\n    --chdir / \\\n    --config " + path + " \\\n    --drain-timeout 5s\n"
	if !strings.Contains(got.out, want) || !strings.Contains(got.out, "RuntimeDirectory=grace/x shop\n") {
		t.Errorf("no %s in %s", want, got.out)
	}
}

// FuzzConfig: whatever is in the file, the answer is flags or an error that names the file.
func FuzzConfig(f *testing.F) {
	for _, text := range []string{"", goodConfig, "listen = [1, true, 2.5]", "[[a]]\nb=1", "\"\" = 1", "a.b.c = {}", "command = []", "on = '''\nx'''", "\xff"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		file, err := parseConfig("FILE", []byte(text))
		if err == nil {
			_, err = file.apply(newFlags())
		}
		if err != nil && !strings.HasPrefix(err.Error(), "FILE:") {
			t.Errorf("%q: %v", text, err)
		}
	})
}
