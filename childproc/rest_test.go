package childproc

import (
	"context"
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// leavers put a process that writes its pid to $OUT beyond the reach of their group, each in its own way.
var leavers = map[string]string{
	"setsid":                `setsid sh -c 'echo $$ >$OUT; exec sleep 1000' & `,
	"double fork":           `(setsid sh -c '(echo $(exec sh -c "echo \$PPID") >$OUT; exec sleep 1000) & ' &) ; `,
	"environment":           `env -i OUT=$OUT PATH=$PATH setsid sh -c 'echo $$ >$OUT; exec sleep 1000' & `,
	"below what has left":   `setsid sh -c 'sh -c "echo \$\$ >$OUT; exec sleep 1000" & wait' & `,
	"in the group, as ever": `sh -c 'echo $$ >$OUT; exec sleep 1000' & `,
}

// left gives the pid that a leaver has written.
func left(t *testing.T, out string) (pid int) {
	t.Helper()
	eventually(t, "the process has written its pid", func() bool {
		text, _ := os.ReadFile(out)
		var err error
		pid, err = strconv.Atoi(strings.TrimSpace(string(text)))
		return err == nil && strings.HasSuffix(string(text), "\n")
	})
	t.Cleanup(func() { unix.Kill(pid, unix.SIGKILL) })
	return pid
}

func startLeaver(t *testing.T, f *Reaper, script string) (p *Process, pid int) {
	t.Helper()
	out := t.TempDir() + "/out"
	spec := shell("export OUT=" + out + "; " + script + "while [ ! -s $OUT ]; do sleep 0.01; done; exit 3")
	p, err := f.Start(spec)
	if err != nil {
		t.Fatal(err)
	}
	if exit, err := p.Wait(); err != nil || exit.Code != 3 {
		t.Fatalf("%v, %v", exit, err)
	}
	pid = left(t, out)
	t.Cleanup(func() {
		if !f.owns(p.PID) {
			return // the test has done it
		}
		if err := errors.Join(p.KillRest(), p.Reap()); err != nil {
			t.Error(err)
		}
	})
	return p, pid
}

func TestRestHasWhoLeftTheGroup(t *testing.T) {
	for name, script := range leavers {
		t.Run(name, func(t *testing.T) {
			f := newReaper(t)
			p, pid := startLeaver(t, f, script)
			_, other := startLeaver(t, f, leavers["setsid"])
			eventually(t, "what was left is a sleep", func() bool { return Called(pid) == "sleep" })
			rest, err := p.Rest()
			if err != nil {
				t.Fatal(err)
			}
			defer CloseRest(rest)
			found := false
			for _, r := range rest {
				if r.PID == other {
					t.Errorf("%d is another one's", other)
				}
				found = found || r.PID == pid && r.Command == "sleep 1000"
			}
			if !found {
				t.Errorf("%d is not among %+v", pid, rest)
			}
		})
	}
}

func TestWaitRestWaitsForWhoLeftTheGroup(t *testing.T) {
	for name, script := range leavers {
		t.Run(name, func(t *testing.T) {
			p, pid := startLeaver(t, newReaper(t), script)
			stop := make(chan struct{})
			close(stop)
			if err := p.WaitRest(stop); err != ErrStopped {
				t.Fatalf("process %d lives, but: %v", pid, err)
			}
			if err := p.KillRest(); err != nil {
				t.Fatal(err)
			}
			if err := p.WaitRest(nil); err != nil {
				t.Error(err)
			}
			if stat, err := readStat(pid); err == nil && stat.living() {
				t.Errorf("process %d still lives", pid)
			}
			if err := p.Reap(); err != nil {
				t.Error(err)
			}
		})
	}
}

// A main process that was adopted, and what is below it, is no rest of who has launched it.
func TestRestLeavesOutWhoIsLookedAfter(t *testing.T) {
	f := newReaper(t)
	p, pid := startLeaver(t, f, leavers["setsid"])
	main, err := f.Adopt(pid)
	if err != nil {
		t.Fatal(err)
	}
	defer main.Release()
	if err := p.WaitRest(nil); err != nil {
		t.Error(err)
	}
}

func TestOutputLeavesNothingBehind(t *testing.T) {
	for name, hangs := range map[string]string{"ended": "", "hanging": "sleep 1000"} {
		t.Run(name, func(t *testing.T) {
			out := t.TempDir() + "/out"
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			ended := make(chan error, 1)
			go func() {
				_, _, err := newReaper(t).Output(ctx, shell("export OUT="+out+"; "+leavers["setsid"]+"while [ ! -s $OUT ]; do sleep 0.01; done; "+hangs), 100)
				ended <- err
			}()
			pid := left(t, out)
			if hangs != "" {
				cancel()
			}
			select {
			case <-ended: // with an error where it was cancelled
			case <-time.After(deadline):
				t.Fatal("it does not end")
			}
			if stat, err := readStat(pid); err == nil && stat.living() {
				t.Errorf("process %d still lives", pid)
			}
		})
	}
}

// The tag is not left on who forks.
func TestMarkIsOfTheChildAlone(t *testing.T) {
	p, _ := startLeaver(t, newReaper(t), leavers["setsid"])
	if own, err := tagOf(os.Getpid()); p.Tag == 0 || own != 0 || err != nil {
		t.Errorf("the child's tag is %d, and that of its parent %d, %v", p.Tag, own, err)
	}
}

// hopper is a program that is always another process: each one ends when it has forked the next. It ends by itself, too.
const hopper = `[ $1 -gt 0 ] && exec setsid -f sh -c "$HOPPER" sh $(($1-1))`

// startHopper gives, beside the process that has left it behind, a pipe that ends with the hopper.
func startHopper(t *testing.T, f *Reaper) (p *Process, ended *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	spec := shell(`export HOPPER='` + hopper + `'; setsid -f sh -c "$HOPPER" sh 20000`)
	spec.Files = []int{int(w.Fd())}
	p, err = f.Start(spec)
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	if exit, err := p.Wait(); err != nil || exit.Code != 0 {
		t.Fatalf("%v, %v", exit, err)
	}
	return p, r
}

// A process that ends during the look leaves its child where the look has been.
func TestRestIsNeverEmptyWhileSomethingLives(t *testing.T) {
	for name, strange := range map[string]bool{"own children": false, "all processes": true} {
		t.Run(name, func(t *testing.T) {
			f := newReaper(t)
			p, ended := startHopper(t, f)
			if f.notOurChildren = strange; strange {
				f.firstTag = f.lastTag // as if another one had started it
			}
			for range 30 {
				if pids, err := p.rest(); err != nil || len(pids) == 0 {
					t.Errorf("nothing is left: %v", err)
					break
				}
				reapFound(t, f)
			}
			if err := errors.Join(p.KillRest(), p.WaitRest(nil)); err != nil {
				t.Error(err)
			}
			if n, err := unix.Poll([]unix.PollFd{{Fd: int32(ended.Fd())}}, 0); n != 1 {
				t.Errorf("something lives after the wait: %v", err)
			}
			if err := p.Reap(); err != nil {
				t.Error(err)
			}
		})
	}
}

// On a machine that starts processes all the time a look at all of them ends all the same.
func TestLookEndsBesideWhoForksAllTheTime(t *testing.T) {
	f := newReaper(t)
	p, _ := startHopper(t, f)
	for range 30 {
		looks := 0
		if err := eachProcess(func(int) bool { return true }, func(int, procStat) { looks++ }); err != nil || looks == 0 {
			t.Errorf("%d processes, %v", looks, err)
		}
		reapFound(t, f)
	}
	if err := errors.Join(p.KillRest(), p.WaitRest(nil), p.Reap()); err != nil {
		t.Error(err)
	}
}

func reapFound(t *testing.T, f *Reaper) {
	t.Helper()
	if _, err := f.ReapOrphans(); err != nil {
		t.Error(err)
	}
}

// startLiving gives a process that lives until the test is over, after what the script has done.
func startLiving(t *testing.T, f *Reaper, script string) *Process {
	t.Helper()
	p, err := f.Start(shell(script + "exec sleep 1000"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		err := p.Signal(unix.SIGKILL)
		if _, err2 := p.Wait(); err != nil || err2 != nil {
			t.Error(err, err2)
		}
		if err := errors.Join(p.KillRest(), p.WaitRest(nil), p.Reap()); err != nil {
			t.Error(err)
		}
	})
	return p
}

// The tree of a main process that lives on has whoever has lost the parent below it, and nobody of another one's.
func TestReaperTreeHasOrphans(t *testing.T) {
	for name, leave := range map[string]string{
		"orphan":            `(setsid sh -c 'echo $$ >$OUT; exec sleep 1000' &); `,
		"child of orphan":   `(setsid sh -c 'sh -c "echo \$\$ >$OUT; exec sleep 1000" & wait' &); `,
		"empty environment": `(env -i OUT=$OUT PATH=$PATH setsid sh -c 'echo $$ >$OUT; exec sleep 1000' &); `,
	} {
		t.Run(name, func(t *testing.T) {
			f, out := newReaper(t), t.TempDir()+"/out"
			p, other := startLiving(t, f, "export OUT="+out+"; "+leave), startLiving(t, f, "")
			pid := left(t, out)
			eventually(t, "its tree has who has lost the parent", func() bool { return slices.Contains(must(f.Tree(p.PID)), pid) })
			if tree := must(f.Tree(p.PID)); tree[0] != p.PID || slices.Contains(tree, other.PID) || slices.Contains(tree, os.Getpid()) {
				t.Errorf("it is %v", tree)
			}
			if tree := must(f.Tree(other.PID)); !slices.Equal(tree, []int{other.PID}) {
				t.Errorf("that of another one is %v", tree)
			}
			f.notOurChildren = true // as after a reexec into another process
			if tree := must(f.Tree(p.PID)); !slices.Contains(tree, pid) {
				t.Errorf("among all processes it is %v", tree)
			}
			f.firstTag = f.lastTag // those of another Reaper
			if tree := must(f.Tree(p.PID)); !slices.Contains(tree, pid) {
				t.Errorf("of another Reaper it is %v", tree)
			}
		})
	}
}

// A process that has left nothing behind is known to have by one file; whenever something may be left, one has to look.
func TestNothingLeft(t *testing.T) {
	for name, script := range leavers {
		t.Run(name, func(t *testing.T) {
			f := newReaper(t)
			p, pid := startLeaver(t, f, script)
			if f.nothingLeft(p) {
				t.Error("what was left is overlooked")
			}
			adopted, err := f.Adopt(pid)
			if err != nil {
				t.Fatal(err)
			}
			if f.nothingLeft(p) {
				t.Error("what was left is overlooked when it was adopted")
			}
			err = adopted.Signal(unix.SIGKILL)
			_, waited := adopted.Wait()
			if err := errors.Join(err, waited, adopted.Reap()); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("nothing", func(t *testing.T) {
		f := newReaper(t)
		living := startLiving(t, f, "sleep 1000 & ")
		ended, err := f.Start(shell("exit 0"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ended.Wait(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "what other tests have left is reaped, and nothing is left of a process beside one that lives", func() bool {
			_, err := f.ReapOrphans()
			return err == nil && f.nothingLeft(ended)
		})
		if f.nothingLeft(living) {
			t.Error("nothing is left of a process that lives, and that has a child")
		}
		if err := ended.Reap(); err != nil {
			t.Error(err)
		}
	})
}
