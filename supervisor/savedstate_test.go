package supervisor

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gracerun/grace/childproc"
	"github.com/gracerun/grace/handoff/socket"
	"github.com/gracerun/grace/supervisor/host"
	"github.com/gracerun/grace/supervisor/machine"
)

// anySaved is the state of a grace process with one instance, whose process is pid.
func anySaved(t testing.TB, pid int) *savedState {
	t.Helper()
	m := machine.NewMachine(testPolicy())
	m.Begin(time.Now())
	for _, ev := range []machine.Event{machine.Prepared{Generation: 1, Launch: machine.LaunchSpec{Executable: "/app"}}, machine.Started{Instance: 1, PID: pid}, machine.Readied{Instance: 1}} {
		m.Step(time.Now(), ev)
	}
	d := &savedState{
		handoverState: handoverState{
			Version: stateVersion, Grace: "v1", PID: 7, Machine: m.Snapshot(func(machine.Timer) time.Time { return time.Time{} }, reasonText),
			Host: host.HostState{
				Runtime:  "/run/grace-run-1",
				Launches: map[int]host.LaunchSpecState{1: {Path: "/app"}},
				Apps:     []host.InstanceProcessState{{Start: machine.Start{Generation: 1, Instance: 1}, Calls: -1}},
			},
		},
		Name: "web", Command: []string{"/app"}, Dir: "/", Boot: boot(),
	}
	app := &d.Host.Apps[0]
	app.Main.PID, app.Notify.Path = pid, "/run/grace-run-1/notify-X"
	return d
}

// What a grace process does not understand, or no grace process has written, it does not touch.
func TestForeignStateIsRefused(t *testing.T) {
	for why, change := range map[string]func(d *savedState){
		"use a newer grace":                func(d *savedState) { d.Version = stateVersion + 1; d.Grace = "v99" },
		"version 0":                        func(d *savedState) { d.Version = 0 },
		"is incomplete":                    func(d *savedState) { d.Boot = "" },
		"process 1 as one":                 func(d *savedState) { d.Host.Apps[0].Main.PID, d.Machine.Generations[0].Instances[0].PID = 1, 1 },
		"process -1 as one":                func(d *savedState) { d.Host.Apps[0].Main.PID = -1 },
		"two processes":                    func(d *savedState) { d.Host.Apps[0].Main.PID++ },
		"outside of the runtime directory": func(d *savedState) { d.Host.Apps[0].Notify.Path = "/run/grace-run-1/../passwd" },
		`directory: "/etc/passwd"`:         func(d *savedState) { d.Host.Apps[0].Notify.Path = "/etc/passwd" },
		`directory: ""`:                    func(d *savedState) { d.Host.Apps[0].Notify.Path = "" },
		"without a socket":                 func(d *savedState) { d.Host.Listeners = []socket.ListenerState{{FD: -1}} },
		"without its process":              func(d *savedState) { d.Host.Apps = nil },
	} {
		d := anySaved(t, 4711)
		change(d)
		if _, err := readSaved(encoded(t, d)); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v", why, err)
		}
	}
	whole := bytes.TrimSpace(encoded(t, anySaved(t, 4711)))
	for n := range len(whole) {
		if _, err := readSaved(whole[:n]); err == nil {
			t.Fatalf("a state of which %d bytes of %d are left is read", n, len(whole))
		}
	}
	if _, err := readSaved(whole); err != nil {
		t.Error(err)
	}
}

func encoded(t testing.TB, d *savedState) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := d.encode(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// FuzzSavedState: whatever is in the file, it is refused or gives a machine.
func FuzzSavedState(f *testing.F) {
	text := encoded(f, anySaved(f, 4711))
	f.Add(text)
	f.Add([]byte(strings.Replace(string(text), `"Host":{`, `"Host":{"Steering":{"Groups":[{"Members":[{"FD":7}]}],"Paths":[{"Members":[{"FD":8,"Inode":2}],"Hidden":[{}]}]},`, 1)))
	f.Fuzz(func(t *testing.T, text []byte) {
		d, err := readSaved(text)
		if err != nil {
			return
		}
		if s := d.Host.Steering; s != nil {
			s.Keep(map[uint64]int{}, socket.Descriptors{})
		}
		m, _, err := machine.Restore(testPolicy(), d.Machine, time.Now())
		if err != nil {
			return
		}
		m.Step(time.Now(), machine.UpgradeRequested{})
		m.Step(time.Now(), machine.KillRequested{})
	})
}

// stateIn writes a state to a runtime directory of its own, and gives the directory.
func stateIn(t *testing.T, d *savedState) string {
	t.Helper()
	parent := t.TempDir()
	t.Setenv("RUNTIME_DIRECTORY", parent)
	path := filepath.Join(parent, "grace-run-1")
	d.Host.Runtime = path
	for i := range d.Host.Apps {
		d.Host.Apps[i].Notify.Path = path + "/notify-X"
	}
	text, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+"/state", text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// sleeper is a process that is as the state says.
func sleeper(t *testing.T) *childproc.Process {
	t.Helper()
	r, err := childproc.NewReaper()
	if err != nil {
		t.Fatal(err)
	}
	p, err := r.Start(childproc.Spec{Path: "/bin/sleep", Args: []string{"sleep", "1000"}, Stdin: -1, Stdout: 1, Stderr: 2, Umask: -1, Dir: "/"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.SignalGroup(9)
		p.Wait()
		p.Reap()
	})
	return p
}

func TestWhatIsFoundOfAKilledGrace(t *testing.T) {
	living, ended := sleeper(t), func(d *savedState) { d.Host.Apps[0].Main.Birth.Started-- }
	here, _, _ := strings.Cut(boot(), " ")
	for name, c := range map[string]struct {
		change func(path string, d *savedState)
		mode   AdoptMode
		why    string
		found  bool
		left   bool // the directory is there afterwards
	}{
		"its app lives":            {func(string, *savedState) {}, AdoptAuto, "", true, true},
		"nothing is to be adopted": {func(string, *savedState) {}, AdoptNever, "", false, true},
		"before the last boot":     {func(_ string, d *savedState) { d.Boot = "another" }, AdoptAuto, "", false, false},
		"its number is another's":  {func(_ string, d *savedState) { ended(d) }, AdoptAuto, "", false, false},
		"its grace process lives": {func(_ string, d *savedState) {
			d.PID, d.Birth = os.Getpid(), childproc.OwnBirth()
		}, AdoptAuto, fmt.Sprintf("grace process %d still runs", os.Getpid()), false, true},
		"its grace process lives, and no app does": {func(_ string, d *savedState) {
			ended(d)
			d.PID, d.Birth = os.Getpid(), childproc.OwnBirth()
		}, AdoptAuto, "", false, true},
		"in another PID namespace":    {func(_ string, d *savedState) { d.Boot = here + " pid:[1]" }, AdoptAuto, "", false, true},
		"in a container that is over": {func(_ string, d *savedState) { d.Boot, d.PID = here+" pid:[1]", 1 }, AdoptAuto, "", false, false},
		"another name":                {func(_ string, d *savedState) { d.Name = "other" }, AdoptAuto, "", false, true},
		"required, and another name":  {func(_ string, d *savedState) { d.Name = "other" }, AdoptRequire, "--adopt require", false, true},
		"newer":                       {func(_ string, d *savedState) { d.Version = 99 }, AdoptAuto, "use a newer grace", false, true},
		"of another directory": {func(_ string, d *savedState) {
			d.Host.Runtime, d.Host.Apps[0].Notify.Path = "/run/other", "/run/other/notify-X"
		}, AdoptAuto, "another runtime directory", false, true},
	} {
		t.Run(name, func(t *testing.T) {
			d := anySaved(t, living.PID)
			d.Host.Apps[0].Main = living.State()
			path := stateIn(t, d)
			c.change(path, d)
			text, err := json.Marshal(d)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path+"/state", text, 0o600); err != nil {
				t.Fatal(err)
			}
			s := &service{options: Options{Name: "web", Adopt: c.mode}}
			found, err := s.findAbandoned()
			if (found != nil) != c.found || (err != nil) != (c.why != "") || err != nil && !strings.Contains(err.Error(), c.why) {
				t.Errorf("found %v, %v", found, err)
			}
			if found != nil {
				found.dir.Leave()
			}
			if _, err := os.Lstat(path); (err == nil) != c.left {
				t.Errorf("of the directory: %v", err)
			}
			if !childproc.Living(living.PID) {
				t.Fatal("the app was ended")
			}
		})
	}
}

// A grace process of another version may lock nothing and write no state, but it reads its sockets.
func TestDirectoryWithoutAState(t *testing.T) {
	for what, c := range map[string]struct {
		use  func(dir string) error
		left bool
	}{
		"without a socket": {func(string) error { return nil }, true},
		"with a socket that is read": {func(dir string) error {
			s, err := childproc.OpenNotify(dir, -1, -1)
			if err == nil {
				t.Cleanup(func() { s.Close() })
			}
			return err
		}, true},
		"with a socket of nobody": {func(dir string) error {
			l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: dir + "/notify-X"})
			if err != nil {
				return err
			}
			return l.Close() // which leaves the path
		}, false},
	} {
		path := stateIn(t, anySaved(t, 4711))
		if err := errors.Join(os.Remove(path+"/state"), c.use(path)); err != nil {
			t.Fatal(err)
		}
		s := &service{options: Options{Name: "web"}}
		if found, err := s.findAbandoned(); found != nil || err != nil {
			t.Errorf("%s: found %v, %v", what, found, err)
		}
		if _, err := os.Lstat(path); (err == nil) != c.left {
			t.Errorf("%s: of the directory: %v", what, err)
		}
	}
}

func TestRefusalNamesWhatEndsIt(t *testing.T) {
	living := sleeper(t)
	d := anySaved(t, living.PID)
	other, scopeFile := errors.New("no room"), ptraceScope
	t.Cleanup(func() { ptraceScope = scopeFile })
	if err := d.denied(other, nil); err != other {
		t.Errorf("another error becomes %v", err)
	}
	blind := fmt.Errorf("%w: process %d: permission denied", childproc.ErrCannotLook, living.PID)
	for scope, want := range map[string]bool{"1\n": true, "0\n": false, "": false} {
		ptraceScope = filepath.Join(t.TempDir(), "ptrace_scope")
		if err := os.WriteFile(ptraceScope, []byte(scope), 0o600); err != nil {
			t.Fatal(err)
		}
		text := d.denied(blind, []string{"grace", "run", "--name", "the web"}).Error()
		for _, part := range []string{blind.Error(), fmt.Sprintf("generation 1 (pid %d)", living.PID), `"sudo grace run --name 'the web'"`, fmt.Sprintf(`"kill %d"`, living.PID)} {
			if !strings.Contains(text, part) {
				t.Errorf("it says nothing of %q: %s", part, text)
			}
		}
		if strings.Contains(text, "kernel.yama.ptrace_scope is 1 here") != want {
			t.Errorf("with a ptrace_scope of %q it says %s", scope, text)
		}
	}
}
