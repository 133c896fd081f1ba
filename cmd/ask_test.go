package cmd

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gracerun/grace/supervisor/control"
)

// fake is a grace that answers what a test wants.
type fake struct {
	mutex  sync.Mutex
	asked  []control.Request
	lines  []control.Line
	refuse error
	hang   bool // after the lines
	busy   bool // it takes up nothing
	status control.Status
}

func (f *fake) Status(context.Context) (control.Status, error) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	return f.status, f.refuse
}

func (f *fake) Ask(ctx context.Context, r control.Request) (<-chan control.Line, error) {
	if f.busy {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	f.mutex.Lock()
	defer f.mutex.Unlock()
	f.asked = append(f.asked, r)
	lines := make(chan control.Line, len(f.lines))
	for _, l := range f.lines {
		lines <- l
	}
	if !f.hang {
		close(lines)
	}
	return lines, f.refuse
}

func (f *fake) requests() []control.Request {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	return f.asked
}

// inPlace has graces of this test, and of commands that it runs, be in a directory of
// their own.
func inPlace(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	t.Setenv("RUNTIME_DIRECTORY", dir)
	t.Setenv("XDG_RUNTIME_DIR", "")
	return dir
}

// serve lets a fake be found as name until stop is called, at the latest at the end.
func serve(t *testing.T, name string, f *fake) (stop func()) {
	t.Helper()
	socket, err := control.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := socket.Listener()
	if err != nil {
		t.Fatal(err)
	}
	server := control.Serve(listener, f)
	stop = sync.OnceFunc(func() {
		if err := errors.Join(server.Close(), socket.Close()); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// said is what a command has written before it ended.
type said struct {
	status int
	out    string
	err    string
}

func say(t *testing.T, args ...string) said {
	t.Helper()
	var out, err strings.Builder
	c := grace(args...)
	c.Stdout, c.Stderr = &out, &err
	return said{statusOf(t, c), out.String(), err.String()}
}

func notReady(after float64, why string) control.Line {
	return control.Line{Report: &control.Report{Level: "info", Text: "not ready yet", Generation: 5, PID: 7, Took: after, Why: why}}
}

func TestResults(t *testing.T) {
	inPlace(t)
	begins := control.Line{Report: &control.Report{Level: "info", Text: "upgrade begins", Generation: 5}}
	detail := control.Line{Report: &control.Report{Level: "debug", Text: "nobody's business"}}
	result := func(r control.Result) []control.Line { return []control.Line{begins, detail, {Result: &r}} }
	const progress = "generation 5: upgrade begins\n"
	upgrade, rollback := []control.Request{{Do: control.Upgrade}}, []control.Request{{Do: control.Rollback}}
	for name, c := range map[string]struct {
		args  []string
		grace *fake
		asked []control.Request
		want  said
	}{
		"upgraded": {
			[]string{"upgrade"}, &fake{lines: result(control.Result{Outcome: control.Upgraded, Generation: 5, Serving: 5, Took: 0.4})}, upgrade,
			said{0, "upgraded in 0.400 s: generation 5 serves\n", progress}},
		"upgraded to a command": {
			[]string{"upgrade", "web", "--", "./app", "--flag", "-v"}, &fake{lines: result(control.Result{Outcome: control.Upgraded, Generation: 5})},
			[]control.Request{{Do: control.Upgrade, Command: []string{"./app", "--flag", "-v"}}},
			said{0, "upgraded in 0.000 s: generation 5 serves\n", progress}},
		"rolled back": {
			[]string{"rollback", "web"}, &fake{lines: result(control.Result{Outcome: control.Upgraded, Generation: 5, Took: 12.3})}, rollback,
			said{0, "rolled back in 12 s: generation 5 serves\n", progress}},
		"upgraded to the same": {
			[]string{"upgrade"}, &fake{lines: result(control.Result{Outcome: control.Upgraded, Generation: 5, Took: 2, Unchanged: true})}, upgrade,
			said{0, "upgraded in 2.0 s: generation 5 serves (the same executable in the same directory as before)\n", progress}},
		"rolled back to the same": {
			[]string{"rollback"}, &fake{lines: result(control.Result{Outcome: control.Upgraded, Generation: 5, Took: 2, Unchanged: true})}, rollback,
			said{0, "rolled back in 2.0 s: generation 5 serves (the same executable in the same directory as before: files that were changed in place stay changed)\n", progress}},
		"not ready, for the same reason and for another one": {
			[]string{"upgrade"}, &fake{lines: []control.Line{notReady(2, "it loads"), notReady(7, "it loads"), notReady(12, "it listens elsewhere"), {Result: &control.Result{Outcome: control.Upgraded, Generation: 5, Took: 13}}}}, upgrade,
			said{0, "upgraded in 13 s: generation 5 serves\n", "generation 5: not ready yet (pid 7, 2.0 s): it loads\ngeneration 5: not ready yet (pid 7, 7.0 s)\n" +
				"generation 5: not ready yet (pid 7, 12 s): it listens elsewhere\n"}},
		"failed": {
			[]string{"upgrade"}, &fake{lines: result(control.Result{Outcome: control.Failed, Generation: 5, Serving: 4, Why: "exit status 3", Output: "/var/log/app\x1b[2J"})}, upgrade,
			said{1, "", progress + "grace: failed: generation 5: exit status 3\n  the output of the new processes went to /var/log/app?[2J\n  generation 4 still serves\n"}},
		"failed, and nothing serves": {
			[]string{"upgrade"}, &fake{lines: result(control.Result{Outcome: control.Failed, Generation: 5})}, upgrade,
			said{1, "", progress + "grace: failed: generation 5\n  no generation serves\n"}},
		"undone": {
			[]string{"rollback"}, &fake{lines: result(control.Result{Outcome: control.Undone, Generation: 5, Serving: 4, Why: "signal 9"})}, rollback,
			said{1, "", progress + "grace: undone: generation 5 served and then failed: signal 9\n  generation 4 still serves\n"}},
		"superseded": {
			[]string{"upgrade"}, &fake{lines: result(control.Result{Outcome: control.Superseded, Why: "a later request"})}, upgrade,
			said{3, "", progress + "grace: superseded: a later request\n"}},
		"refused": {
			[]string{"upgrade"}, &fake{lines: result(control.Result{Outcome: control.Refused, Serving: 4, Why: "grace is stopping"})}, upgrade,
			said{1, "", progress + "grace: refused: grace is stopping\n  generation 4 still serves\n"}},
		"refused at once": {
			[]string{"upgrade"}, &fake{refuse: errors.New("not now")}, upgrade,
			said{1, "", "grace: upgrade refused: not now\n"}},
		"cut": {
			[]string{"upgrade"}, &fake{lines: []control.Line{begins}}, upgrade,
			said{1, "", progress + "grace: upgrade: grace ended before it sent the result\n"}},
		"not waited for": {
			[]string{"upgrade", "--no-wait"}, &fake{hang: true}, upgrade,
			said{0, "upgrade requested from web\n", ""}},
		"too late": {
			[]string{"upgrade", "--timeout", "1s"}, &fake{hang: true}, upgrade,
			said{124, "", "grace: upgrade: no result after 1s; it goes on (see grace status)\n"}},
		"not taken up": {
			[]string{"upgrade", "--timeout", "1s"}, &fake{busy: true}, nil,
			said{124, "", "grace: upgrade: no result after 1s; it is not known whether it was started (see grace status)\n"}},
		"reexeced": {
			[]string{"reexec"}, &fake{lines: result(control.Result{Outcome: control.Reexeced, Took: 1.25})}, []control.Request{{Do: control.Reexec}},
			said{0, "the new grace process has taken over after 1.2 s\n", progress}},
		"not reexeced": {
			[]string{"reexec", "web"}, &fake{lines: result(control.Result{Outcome: control.Failed, Why: "no such file"})}, []control.Request{{Do: control.Reexec}},
			said{1, "", progress + "grace: failed: no such file\n  the old grace process keeps running\n"}},
		"signalled": {
			[]string{"signal", "web", "SIGUSR2"}, &fake{lines: result(control.Result{Outcome: control.Signalled, Generation: 5})}, []control.Request{{Do: control.Signal, Signal: syscall.SIGUSR2}},
			said{0, "USR2 sent to generation 5\n", ""}},
		"signalled by number": {
			[]string{"signal", "40"}, &fake{lines: result(control.Result{Outcome: control.Signalled, Generation: 5})}, []control.Request{{Do: control.Signal, Signal: 40}},
			said{0, "40 sent to generation 5\n", ""}},
		"not signalled": {
			[]string{"signal", "HUP"}, &fake{lines: result(control.Result{Outcome: control.Refused, Why: "nobody is there"})}, []control.Request{{Do: control.Signal, Signal: syscall.SIGHUP}},
			said{1, "", "grace: signal refused: nobody is there\n"}},
		"no such signal": {[]string{"signal", "NOPE"}, &fake{}, nil, said{2, "", "grace: \"NOPE\": no such signal (write HUP, USR2 ...)\n"}},
		"stop refused": {
			[]string{"stop", "--now"}, &fake{lines: result(control.Result{Outcome: control.Refused, Why: "no"})}, []control.Request{{Do: control.Stop, Now: true}},
			said{1, "", progress + "grace: stop refused: no\n"}},
		"stop not waited for": {
			[]string{"stop", "--no-wait"}, &fake{hang: true}, []control.Request{{Do: control.Stop}},
			said{0, "stop requested from web\n", ""}},
		"stop too late": {
			[]string{"stop", "--timeout", "1s"}, &fake{lines: result(control.Result{Outcome: control.Stopped})}, []control.Request{{Do: control.Stop}},
			said{124, "", progress + "grace: stop: no result after 1s; it goes on (see grace status)\n"}},
	} {
		t.Run(name, func(t *testing.T) {
			stop := serve(t, "web", c.grace)
			defer stop()
			if got := say(t, c.args...); got != c.want {
				t.Errorf("got  %+v\nwant %+v", got, c.want)
			}
			if got := c.grace.requests(); !reflect.DeepEqual(got, c.asked) {
				t.Errorf("it was asked for %+v", got)
			}
		})
	}
}

func TestInterruptedUpgradeGoesOn(t *testing.T) {
	inPlace(t)
	f := &fake{hang: true, lines: []control.Line{{Report: &control.Report{Text: "upgrade begins"}}}}
	serve(t, "web", f)
	c := grace("upgrade")
	out, err := c.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	lines := readLines(out)
	if got := <-lines; got != "upgrade begins" {
		t.Errorf("it shows %q", got)
	}
	if err := c.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if got := <-lines; got != "grace: interrupted; the upgrade goes on (see grace status)" {
		t.Errorf("it says %q", got)
	}
	if _ = c.Wait(); c.ProcessState.ExitCode() != 130 {
		t.Errorf("it ended with %v", c.ProcessState)
	}
}

func TestWhichGrace(t *testing.T) {
	dir := inPlace(t)
	both := "several grace processes run here: give the name of one\n"
	for _, name := range []string{"cmd-test-a", "cmd-test-b"} {
		serve(t, name, &fake{lines: []control.Line{{Result: &control.Result{Outcome: control.Upgraded, Generation: 2}}}})
	}
	for name, c := range map[string]struct {
		args   []string
		status int
		says   string
	}{
		"by name":     {[]string{"upgrade", "cmd-test-a"}, 0, ""},
		"by path":     {[]string{"upgrade", filepath.Join(dir, "cmd-test-b.sock")}, 0, ""},
		"no name":     {[]string{"upgrade"}, 4, both},
		"wrong name":  {[]string{"stop", "cmd-test-c"}, 4, `no grace process is named "cmd-test-c"; these run here:`},
		"wrong path":  {[]string{"status", filepath.Join(dir, "x.sock")}, 4, "no such file"},
		"two names":   {[]string{"upgrade", "a", "b"}, 2, "write -- before the new command"},
		"no dashes":   {[]string{"upgrade", "/bin/sh"}, 2, "/bin/sh is not a control socket (to start another command, write -- before it: grace upgrade -- /bin/sh)"},
		"both kinds":  {[]string{"upgrade", "a", "b", "--", "c"}, 2, "more than one name was given before --"},
		"no command":  {[]string{"upgrade", "--"}, 2, "no command after --"},
		"empty one":   {[]string{"upgrade", "cmd-test-a", "--", ""}, 2, "no command after --"},
		"a wait":      {[]string{"rollback", "--timeout", "5"}, 2, "invalid argument"},
		"too many":    {[]string{"rollback", "a", "b"}, 2, "accepts at most 1 arg"},
		"less wait":   {[]string{"stop", "--timeout", "-1s"}, 2, "it is negative"},
		"a name less": {[]string{"list", "a"}, 2, "unknown command"},
	} {
		t.Run(name, func(t *testing.T) {
			got := say(t, c.args...)
			if got.status != c.status || !strings.Contains(got.err, c.says) {
				t.Errorf("%+v", got)
			}
		})
	}
}

func TestNamesAreCompleted(t *testing.T) {
	inPlace(t)
	serve(t, "cmd-test-web", &fake{})
	for name, c := range map[string]struct {
		args []string
		want bool
		ends string // with cobra's directive: 4 is no files, 0 whatever the shell likes
	}{
		"the name":    {[]string{"upgrade", ""}, true, ":4\n"},
		"after it":    {[]string{"stop", "cmd-test-web", ""}, false, ":4\n"},
		"the command": {[]string{"upgrade", "cmd-test-web", "--", ""}, false, ":0\n"},
	} {
		t.Run(name, func(t *testing.T) {
			got := say(t, append([]string{"__complete"}, c.args...)...)
			if has := strings.Contains("\n"+got.out, "\ncmd-test-web\n"); got.status != 0 || has != c.want || !strings.HasSuffix(got.out, c.ends) {
				t.Errorf("%+v", got)
			}
		})
	}
}

// startRun starts a real grace, called web, with an app that ignores TERM, or is ended
// by it. Its pid is in a file.
func startRun(t *testing.T, treatment string) (c *exec.Cmd, pidFile string) {
	t.Helper()
	pidFile = filepath.Join(t.TempDir(), "pid")
	app := "trap " + treatment + " TERM; echo $$ >" + pidFile + "; exec sleep 1000"
	c = grace("run", "--name", "web", "--capture", "off", "--ready", "cmd:test -s "+pidFile, "--", "sh", "-c", app)
	c.Stderr = os.Stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Signal(syscall.SIGQUIT) // it has ended, mostly
		_ = c.Wait()
	})
	for deadline := time.Now().Add(time.Minute); !strings.HasPrefix(say(t, "status", "web").out, "web: serving"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not serve")
		}
	}
	return c, pidFile
}

// The ways to treat a signal, for trap.
const (
	ended   = "-"
	ignored = "''"
)

// Stop returns when the process is gone, not when it has answered.
func TestStopWaitsForTheEnd(t *testing.T) {
	inPlace(t)
	c, _ := startRun(t, ended)
	waited := make(chan error, 1)
	go func() { waited <- c.Wait() }()
	if got := say(t, "stop", "web"); got.status != 0 || got.out != "web has ended\n" {
		t.Errorf("%+v", got)
	}
	if err := c.Process.Signal(syscall.Signal(0)); err == nil && !isZombie(c.Process.Pid) {
		t.Error("it is still there")
	}
	if err := <-waited; err != nil {
		t.Error(err)
	}
}

// isZombie: its parent, which is this test, may not have waited for it yet.
func isZombie(pid int) bool {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err != nil || strings.Contains(string(text), ") Z ")
}

func TestStopNow(t *testing.T) {
	inPlace(t)
	startRun(t, ignored)
	if got := say(t, "stop", "--timeout", "20ms"); got.status != 124 {
		t.Errorf("it ends: %+v", got)
	}
	if got := say(t, "stop", "--now"); got.status != 0 {
		t.Errorf("%+v", got)
	}
}

// The answer is cut by the end of grace, which is what was asked for.
func TestStopOfAGraceThatIsKilled(t *testing.T) {
	inPlace(t)
	c, pidFile := startRun(t, ignored)
	stop := grace("stop")
	shown, err := stop.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := stop.Start(); err != nil {
		t.Fatal(err)
	}
	if got := <-readLines(shown); got != "stopping (within 30 s)" {
		t.Errorf("it shows %q", got)
	}
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	killApp(t, pidFile)
	if err := stop.Wait(); err != nil {
		t.Error(err)
	}
}

// killApp ends the process group of an app that has outlived its grace.
func killApp(t *testing.T, pidFile string) {
	t.Helper()
	text, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(-pid, syscall.SIGKILL); err != nil {
		t.Error(err)
	}
}
