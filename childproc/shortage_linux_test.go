package childproc

import (
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

func init() { roles["at the limit"] = startAtTheLimit }

// A fork that takes the last place leaves none for the threads of the shim. That is no end of the app, which never ran.
func TestShimWithoutThreads(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("it takes root to become a user of whom nothing else runs")
	}
	c := exec.Command("/proc/self/exe")
	c.Env = append(os.Environ(), roleVariable+"=at the limit")
	out, err := c.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "shortage: true, cannot start /bin/sh: start a thread: resource temporarily unavailable (the limit of processes is reached") {
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
	f, err := NewFamily()
	orExit(err)
	p, err := f.Start(shell("exec sleep 60"))
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
