package childproc

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A process that does not take the signal has its children told, and one that does has not.
func TestUntold(t *testing.T) {
	const child = `trap "exit 4" TERM; echo >$OUT; while :; do sleep 0.01; done`
	scripts := map[string]struct {
		script string
		told   int
	}{
		"blocked": {`exec unshare --fork sh -c '` + child + `'`, 1},
		"ignored": {`trap "" TERM; exec python3 -c 'import os, signal
if os.fork(): os._exit(os.waitstatus_to_exitcode(os.wait()[1]))
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
signal.signal(signal.SIGTERM, signal.SIG_DFL)
open(os.environ["OUT"], "w").write("\n")
signal.sigwait([signal.SIGTERM])
os._exit(4)'`, 1},
		"taken": {`trap taken=yes TERM; sh -c '` + child + `' & until [ "$taken" ]; do sleep 0.01; done; kill $!; wait $!`, 0},
	}
	for name, c := range scripts {
		t.Run(name, func(t *testing.T) {
			out := t.TempDir() + "/out"
			p, err := newReaper(t).Start(shell("export OUT=" + out + "; " + c.script))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { p.SignalGroup(unix.SIGKILL) })
			eventually(t, "the child runs", func() bool { _, err := os.Stat(out); return err == nil })
			if err := p.Signal(unix.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if c.told == 0 {
				eventually(t, "the signal is taken", func() bool { return !pends(p.PID) })
			}
			told, err := p.Untold(unix.SIGTERM)
			defer CloseRest(told)
			if err != nil || len(told) != c.told {
				t.Fatalf("untold %v, %v", told, err)
			}
			if err := SignalRest(told, unix.SIGTERM); err != nil {
				t.Error(err)
			}
			if exit, err := p.Wait(); err != nil || exit.Code != 4 {
				t.Errorf("%v, %v", exit, err)
			}
			if err := p.Reap(); err != nil {
				t.Error(err)
			}
		})
	}
}

// A wrapper below a wrapper is no end of it.
func TestUntoldBelowWrappers(t *testing.T) {
	out := t.TempDir() + "/out"
	p, err := newReaper(t).Start(shell("export OUT=" + out + `; exec unshare --fork unshare --fork sh -c 'trap "exit 4" TERM; echo >$OUT; while :; do sleep 0.01; done'`))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.SignalGroup(unix.SIGKILL) })
	eventually(t, "the server runs", func() bool { _, err := os.Stat(out); return err == nil })
	if err := p.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	wrappers, err := p.Untold(unix.SIGTERM)
	defer CloseRest(wrappers)
	if err != nil || len(wrappers) != 1 {
		t.Fatalf("%+v, %v", wrappers, err)
	}
	if err := SignalRest(wrappers, unix.SIGTERM); err != nil {
		t.Error(err)
	}
	servers, err := Untold(wrappers, unix.SIGTERM)
	defer CloseRest(servers)
	if err != nil || len(servers) != 1 {
		t.Fatalf("%+v, %v", servers, err)
	}
	if err := SignalRest(servers, unix.SIGTERM); err != nil {
		t.Error(err)
	}
	if exit, err := p.Wait(); err != nil || exit.Code != 4 {
		t.Errorf("%v, %v", exit, err)
	}
	if err := p.Reap(); err != nil {
		t.Error(err)
	}
	if none, err := Untold(servers, unix.SIGTERM); err != nil || len(none) > 0 {
		t.Errorf("of who has ended %+v, %v", none, err)
	}
}

func pends(pid int) bool {
	text, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	return !bytes.Contains(text, []byte("ShdPnd:\t"+strings.Repeat("0", 16)))
}

func TestSurvives(t *testing.T) {
	for script, want := range map[string]bool{
		`echo >$OUT; exec sleep 1000`:                                         false,
		`trap : TERM; echo >$OUT; while :; do sleep 0.01; done`:               true,
		`trap "" TERM; echo >$OUT; exec sleep 1000`:                           true,
		`sh -c 'trap : TERM; echo >$OUT; while :; do sleep 0.01; done'; exit`: true,
		`exec python3 -c 'import os, signal, threading
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
threading.Thread(target=lambda: open(os.environ["OUT"], "w").close() or signal.pause()).start()
signal.sigwait([signal.SIGTERM])'`: true,
	} {
		out := t.TempDir() + "/out"
		p, err := newReaper(t).Start(shell("export OUT=" + out + "; " + script))
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			p.SignalGroup(unix.SIGKILL)
			p.Wait()
			if err := p.Reap(); err != nil {
				t.Error(err)
			}
		}()
		eventually(t, "it runs", func() bool { _, err := os.Stat(out); return err == nil })
		pids, err := Tree(p.PID)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := Survives(append([]int{1 << 30}, pids...), unix.SIGTERM); got != want || err != nil {
			t.Errorf("%s: %v, %v, want %v", script, got, err, want)
		}
	}
}
