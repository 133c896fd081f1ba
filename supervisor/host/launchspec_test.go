package host

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gracerun/grace/handoff/socket"
	"github.com/gracerun/grace/supervisor/machine"
)

func TestEnvFile(t *testing.T) {
	for text, want := range map[string]struct {
		env []string
		err string
	}{
		"":                               {},
		"\n# comment\n; other\n  \n":     {},
		"A=1\nB=two words\n":             {env: []string{"A=1", "B=two words"}},
		"export A=1":                     {env: []string{"A=1"}},
		"  A = 1":                        {err: "line 1: not of the form NAME=VALUE"},
		"A='it is \"$HOME\"'":            {env: []string{`A=it is "$HOME"`}},
		`A="a \"quote\" and \\"`:         {env: []string{`A=a "quote" and \`}},
		"A=":                             {env: []string{"A="}},
		"A=b=c":                          {env: []string{"A=b=c"}},
		"A=1\nno assignment of a secret": {err: "line 2: not of the form NAME=VALUE"},
		"1A=x":                           {err: "line 1: not of the form NAME=VALUE"},
		"=x":                             {err: "line 1: not of the form NAME=VALUE"},
		`A="open`:                        {err: "line 1: the quote is not closed"},
		`A="a" b`:                        {err: "line 1: there is text after the closing quote"},
		"A=\x00":                         {err: "line 1: the value contains a NUL byte"},
	} {
		env, err := parseEnvFile(text)
		if want.err != "" {
			if err == nil || err.Error() != want.err {
				t.Errorf("%q: %v, want %s", text, err, want.err)
			}
			continue
		}
		if err != nil || !slices.Equal(env, want.env) {
			t.Errorf("%q: %q, %v; want %q", text, env, err, want.env)
		}
	}
}

// FuzzEnvFile: whatever comes, each entry is one that execve can take, and no
// error shows a part of the file.
func FuzzEnvFile(f *testing.F) {
	f.Add("A=1\nexport B='x'\n# no\nC=\"\\\"\"")
	f.Add("SECRETSECRET")
	f.Fuzz(func(t *testing.T, text string) {
		env, err := parseEnvFile(text)
		if err != nil && len(text) > 40 && strings.Contains(err.Error(), text) {
			t.Errorf("the error shows the file: %v", err)
		}
		for _, entry := range env {
			name, _, found := strings.Cut(entry, "=")
			if !found || !isVariableName(name) || strings.ContainsRune(entry, 0) {
				t.Errorf("entry %q", entry)
			}
		}
	})
}

func TestUniqueKeepsTheLast(t *testing.T) {
	got := unique([]string{"A=1", "B=1", "A=2", "C=", "B=3"})
	if want := []string{"A=2", "C=", "B=3"}; !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

// tree makes files in a new directory; a name that ends in / is a directory, and
// a * after it makes a file executable.
func tree(t *testing.T, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range names {
		path, executable := strings.CutSuffix(name, "*")
		full := filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(path, "/") {
			continue
		}
		mode := os.FileMode(0o644)
		if executable {
			mode = 0o755
		}
		if err := os.WriteFile(full, []byte("#!/bin/sh\n"), mode); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestFind(t *testing.T) {
	dir := tree(t, "app*", "text", "folder/", "one/tool", "two/tool*", "two/app*")
	if err := os.Mkdir(filepath.Join(dir, "folder"), 0o755); err != nil && !os.IsExist(err) {
		t.Fatal(err)
	}
	path := "/no/such:" + dir + "/one:two"
	for name, want := range map[string]struct {
		path   string
		status int
	}{
		"./app":       {path: dir + "/app"},
		dir + "/app":  {path: dir + "/app"},
		"tool":        {path: dir + "/two/tool"},
		"app":         {path: dir + "/two/app"},
		"./text":      {status: 126},
		"./folder":    {status: 126},
		"./none":      {status: 127},
		"none":        {status: 127},
		"./app/child": {status: 126},
	} {
		got, err := find(name, dir, path)
		failed := (*launchError)(nil)
		if want.status == 0 && (err != nil || got != want.path) {
			t.Errorf("%s: %s, %v", name, got, err)
		}
		if want.status != 0 && (!errors.As(err, &failed) || failed.status != want.status) {
			t.Errorf("%s: %v, want status %d", name, err, want.status)
		}
	}
	if _, err := find("text", dir, dir); StatusOf(err) != 126 {
		t.Errorf("a file in PATH that is not executable: %v", err)
	}
}

func TestExecutableAfterALinkWasMoved(t *testing.T) {
	dir := tree(t, "1/app*", "2/app*")
	link := filepath.Join(dir, "current")
	if err := os.Symlink("1", link); err != nil {
		t.Fatal(err)
	}
	o, err := Options{Dir: link, Command: []string{"./app"}}.Settled()
	if err != nil {
		t.Fatal(err)
	}
	l, err := Resolve(o)
	if err != nil {
		t.Fatal(err)
	}
	if got := l.executable(); got != link+"/app" || l.Dir != dir+"/1" || l.variable("PWD") != link {
		t.Errorf("executable %s in %s, PWD %s", got, l.Dir, l.variable("PWD"))
	}
	if err := errors.Join(os.Remove(link), os.Symlink("2", link)); err != nil {
		t.Fatal(err)
	}
	if got := l.executable(); got != dir+"/1/app" {
		t.Errorf("after the move it is %s", got)
	}
}

func TestIdentities(t *testing.T) {
	for _, test := range []struct {
		user, group string
		uid, gid    int
		fails       string
	}{
		{"nobody", "", 65534, 65534, ""},
		{"65534", "", 65534, 65534, ""},
		{"12345", "", 12345, 12345, ""},
		{"12345", "6789", 12345, 6789, ""},
		{"", "0", os.Getuid(), 0, ""},
		{"no-such", "", 0, 0, "no such user"},
		{"nobody", "no-such", 0, 0, "no such group"},
		{"-1", "", 0, 0, "no such user"},
	} {
		l := &LaunchSpec{}
		err := l.addIdentity(test.user, test.group)
		if test.fails != "" {
			if err == nil || !strings.Contains(err.Error(), test.fails) {
				t.Errorf("%s:%s: %v", test.user, test.group, err)
			}
			continue
		}
		if err != nil || l.Identity.UID != test.uid || l.Identity.GID != test.gid || !slices.Contains(l.Identity.Groups, test.gid) {
			t.Errorf("%s:%s: %+v, %v", test.user, test.group, l.Identity, err)
		}
	}
}

func TestRuntimeDirectory(t *testing.T) {
	private := t.TempDir()
	t.Setenv("RUNTIME_DIRECTORY", private)
	d := OpenRuntimeDir(nil)
	if filepath.Dir(d.Path) != private {
		t.Errorf("it is %s", d.Path)
	}
	if info, err := os.Stat(d.Path); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info, err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(d.Path); !os.IsNotExist(err) {
		t.Errorf("it was left: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Errorf("a second end: %v", err)
	}
}

func TestUnpaused(t *testing.T) {
	tcp, path := socket.Address{Network: "tcp", Addr: ":80"}, socket.Address{Network: "unix", Addr: "/s"}
	steered := tcp
	steered.Steer = true
	for name, tt := range map[string]struct {
		listen   []socket.Address
		farewell time.Duration
		want     string
	}{
		"paused":            {[]socket.Address{tcp}, time.Second, ""},
		"without farewell":  {[]socket.Address{steered, tcp}, 0, ":80"},
		"steered":           {[]socket.Address{steered}, 0, ""},
		"a path":            {[]socket.Address{tcp, path}, time.Second, "/s"},
		"an abstract name":  {[]socket.Address{{Network: "unix", Addr: "@s"}}, time.Second, ""},
		"packets":           {[]socket.Address{{Network: "udp", Addr: ":80"}}, 0, ""},
		"passed to grace":   {[]socket.Address{{Network: "fd", Addr: "web"}}, 0, ""},
		"no held addresses": {nil, 0, ""},
	} {
		o := Options{Command: []string{"app"}, Listen: tt.listen, Policy: machine.Policy{Farewell: tt.farewell}}
		if got := Unpaused(o); got != tt.want {
			t.Errorf("%s: %q, not %q", name, got, tt.want)
		}
	}
}

func TestSharedSocketHint(t *testing.T) {
	for name, tt := range map[string]struct {
		program string
		listen  []string
		hints   bool
	}{
		"puma":             {"/usr/bin/puma", []string{"127.0.0.1:80"}, true},
		"by bundler":       {"bundle exec puma -p 80", []string{"127.0.0.1:80"}, true},
		"a script":         {"/usr/bin/ruby3.1 /usr/local/bin/puma", []string{"127.0.0.1:80"}, true},
		"a module":         {"python3 -m waitress app:app", []string{"127.0.0.1:80"}, true},
		"an argument":      {"node server.js --log=puma", []string{"127.0.0.1:80"}, false},
		"a version":        {"puma3.1", []string{"127.0.0.1:80?steer=true", "127.0.0.1:81"}, true},
		"steered":          {"puma", []string{"127.0.0.1:80?steer=true"}, false},
		"captured":         {"puma", nil, false},
		"of datagrams":     {"puma", []string{"udp://127.0.0.1:80"}, false},
		"one that is well": {"unicorn", []string{"127.0.0.1:80"}, false},
	} {
		o := Options{Command: strings.Fields(tt.program)}
		for _, written := range tt.listen {
			address, err := socket.ParseAddress(written)
			if err != nil {
				t.Fatal(err)
			}
			o.Listen = append(o.Listen, address)
		}
		if hint := SharedSocketHint(o); (hint != "") != tt.hints {
			t.Errorf("%s: %q", name, hint)
		}
	}
}

func TestOwnDataHint(t *testing.T) {
	for name, tt := range map[string]struct {
		program string
		surge   machine.Surge
		hints   bool
	}{
		"redis":                   {"/usr/bin/redis-server", machine.Surge{}, true},
		"redis that saves":        {"redis-server --save 60", machine.Surge{}, true},
		"redis that does not":     {"redis-server --save ", machine.Surge{}, false},
		"valkey":                  {"valkey-server", machine.Surge{}, true},
		"one more at a time":      {"redis-server", machine.Surge{Limited: true, Count: 1}, true},
		"a share at a time":       {"redis-server", machine.Surge{Limited: true, Percent: 50}, true},
		"one after the other":     {"redis-server", machine.Surge{Limited: true}, false},
		"one that locks its data": {"postgres", machine.Surge{}, false},
	} {
		hint := OwnDataHint(Options{Command: strings.Split(tt.program, " "), Policy: machine.Policy{MaxSurge: tt.surge}})
		if (hint != "") != tt.hints {
			t.Errorf("%s: %q", name, hint)
		}
	}
}

func TestStopSignalHint(t *testing.T) {
	for program, want := range map[string]string{
		"/usr/sbin/nginx": "QUIT", "php-fpm8.2": "QUIT", "haproxy": "USR1", "lighttpd": "INT", "node": "", "nginx-proxy": "",
	} {
		hint := StopSignalHint(Options{Command: []string{program}, Policy: machine.Policy{StopSignal: syscall.SIGTERM}})
		if (hint == "") != (want == "") || !strings.Contains(hint, want) {
			t.Errorf("%s: %q", program, hint)
		}
	}
}
