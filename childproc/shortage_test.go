package childproc

import (
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gracerun/grace/internal/noexec"
	"golang.org/x/sys/unix"
)

func init() { roles["at the limit"] = startAtTheLimit }

// A fork that takes the last place leaves none for the threads of a shim that is a copy of grace. That is no end of the app, which
// never ran. The stub has no need of threads.
func TestShimWithoutThreads(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("it takes root to become a user of whom nothing else runs")
	}
	want := "shortage: false, exit status 7"
	if noexec.Denied() {
		want = "shortage: true, cannot start /bin/sh: start a thread: resource temporarily unavailable (the limit of processes is reached"
	}
	c := exec.Command("/proc/self/exe")
	c.Env = append(os.Environ(), roleVariable+"=at the limit")
	out, err := c.CombinedOutput()
	if err != nil || !strings.Contains(string(out), want) {
		t.Errorf("%v: %s", err, out)
	}
}

func startAtTheLimit() {
	runtime.GOMAXPROCS(2)
	spareThreads(16)
	user := 200_000_000 + os.Getpid()
	orExit(unix.Setgroups(nil))
	orExit(unix.Setresuid(user, user, user))
	orExit(unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0)) // or /proc/self/exe is root's
	threads, err := os.ReadDir("/proc/self/task")
	orExit(err)
	limit := uint64(len(threads) + 1)
	orExit(unix.Setrlimit(unix.RLIMIT_NPROC, &unix.Rlimit{Cur: limit, Max: limit}))
	f, err := NewReaper()
	orExit(err)
	p, err := f.Start(shell("exit 7"))
	orExit(err)
	exit, err := p.Wait()
	orExit(err)
	println("shortage: " + strconv.FormatBool(exit.Shortage()) + ", " + exit.String())
}

func spareThreads(n int) {
	var waiting, ended sync.WaitGroup
	enough := make(chan struct{})
	waiting.Add(n)
	for range n {
		ended.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			waiting.Done()
			<-enough
		})
	}
	waiting.Wait()
	close(enough)
	ended.Wait()
}

func orExit(err error) {
	if err != nil {
		println(err.Error())
		os.Exit(1)
	}
}

// without leaves this process no descriptor while something is done.
func without(t *testing.T, do func()) {
	t.Helper()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1, Max: limit.Max}); err != nil {
		t.Fatal(err)
	}
	do()
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
}

// Who cannot look has not found that nothing is left.
func TestLooksWithoutDescriptorsFail(t *testing.T) {
	f := newReaper(t)
	p, pid := startLeaver(t, f, leavers["setsid"])
	looks := map[string]func() error{
		"rest":        func() error { _, err := p.rest(); return err },
		"leftover":    func() error { _, err := p.leftover(pid); return err },
		"tag":         func() error { _, err := tagOf(pid); return err },
		"looks after": func() error { _, err := f.looksAfter(pid); return err },
		"search":      func() error { _, err := f.searchAll(p.Tag); return err },
		"kill":        p.KillRest,
		"wait":        func() error { return p.WaitRest(nil) },
	}
	for name, look := range looks {
		var err error
		without(t, func() { err = look() })
		if !Shortage(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if stat, err := readStat(pid); err != nil || !stat.living() {
		t.Errorf("process %d does not live any more: %v", pid, err)
	}
}

// What has to end is ended when the shortage is over.
func TestRetryOutlastsAShortage(t *testing.T) {
	p, pid := startLeaver(t, newReaper(t), leavers["setsid"])
	failed := make(chan error, 1)
	ended := make(chan error, 1)
	without(t, func() {
		go func() {
			ended <- Retry(nil, func() error {
				err := p.KillRest()
				select {
				case failed <- err:
				default:
				}
				return err
			})
		}()
		if err := <-failed; !Shortage(err) {
			t.Errorf("it does not fail: %v", err)
		}
	})
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(deadline):
		t.Fatal("it does not end")
	}
	if err := p.WaitRest(nil); err != nil {
		t.Error(err)
	}
	if stat, err := readStat(pid); err == nil && stat.living() {
		t.Errorf("process %d still lives", pid)
	}
}

func TestRetryEndsWithItsStop(t *testing.T) {
	stop := make(chan struct{})
	close(stop)
	if err := Retry(stop, func() error { return unix.EMFILE }); err != ErrStopped {
		t.Error(err)
	}
	if err := Retry(stop, func() error { return unix.EPERM }); err != unix.EPERM {
		t.Error(err)
	}
}
