package chaos

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/gracerun/grace/supervisor/control"
	"github.com/gracerun/grace/test/harness"
	"golang.org/x/sys/unix"
)

// frozen stops grace and has things happen that it learns of later.
func frozen(g *grace, random *rand.Rand) {
	before := g.await("it serves", serving).Current
	victim := g.victim(random, "current")
	pid, _ := g.pid()
	g.stop(pid)
	deed := random.IntN(3)
	switch deed {
	case 1:
		g.signal(syscall.SIGHUP)
	case 2:
		g.kill(victim)
	}
	pause(random, time.Second)
	g.signal(syscall.SIGCONT)
	g.await("it goes on after a freeze", func(s control.Status) bool { return serving(s) && (deed != 1 || s.Current > before) })
}

func thawed(g *grace, random *rand.Rand) {
	pid, _ := g.pid()
	g.stop(pid)
	pause(random, time.Second)
	g.signal(syscall.SIGCONT)
}

const takenOver = "taken over"

func reexec(g *grace, random *rand.Rand) {
	before, _ := g.pid()
	said := g.said(takenOver)
	if random.IntN(2) == 0 {
		g.signal(syscall.SIGUSR2)
	} else if result := g.mustAsk(control.Request{Do: control.Reexec}); result.Outcome != control.Reexeced {
		g.find("a reexec to what works: %s: %s", result.Outcome, result.Why)
		return
	}
	g.awaitSaid(takenOver, said)
	if !g.follows {
		return
	}
	for limit := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		if pid, _ := g.pid(); pid != before {
			return
		}
		if time.Now().After(limit) {
			g.lose("the service manager is not told of the new grace")
		}
	}
}

func brokenReexec(g *grace, random *rand.Rand) {
	g.reexecTo(pick(random,
		func() error { return nil }, // there is none
		g.imposter("\x7fELF garbage", 0o755),
		g.imposter("#!/bin/sh\nexit 3\n", 0o755),
		g.imposter("#!/bin/sh\nexit 0\n", 0o755),
		g.imposter("#!/bin/sh\nkill -9 $$\n", 0o755),
		g.imposter("#!/bin/sh\nexit 0\n", 0o644),
		g.imposter("#!/bin/sh\nexec "+filepath.Join(g.run.programs, "grace")+" run --no-such-flag\n", 0o755),
		func() error { return os.Symlink("/bin/true", g.program) },
		func() error { return os.Symlink(filepath.Join(g.run.programs, "app"), g.program) },
	))
}

func hangingReexec(g *grace, _ *rand.Rand) {
	g.reexecTo(g.imposter("#!/bin/sh\nexec sleep 1000\n", 0o755))
}

func (g *grace) imposter(text string, mode os.FileMode) func() error {
	return func() error {
		// Nobody can execute a file that a process which is being born may write to (execve(2), ETXTBSY).
		syscall.ForkLock.RLock()
		defer syscall.ForkLock.RUnlock()
		return os.WriteFile(g.program, []byte(text), mode)
	}
}

func (g *grace) reexecTo(install func() error) {
	g.must(os.Remove(g.program))
	g.must(install())
	result := g.mustAsk(control.Request{Do: control.Reexec})
	if result.Outcome != control.Failed {
		g.find("a reexec to what does not work: %s: %s", result.Outcome, result.Why)
	}
	g.must(g.install())
}

func runtimeRemoved(g *grace, random *rand.Rand) {
	if random.IntN(2) == 0 {
		g.must(harness.RemoveAtOnce(g.runtime()))
	} else {
		left, err := filepath.Glob(g.runtime() + "/*")
		g.must(err)
		for _, path := range left {
			g.must(harness.RemoveAtOnce(path))
		}
	}
	g.upgradeUnasked(random)
	g.client.Close() // a connection that is open already says nothing of new ones
	g.await("the control socket is there again", func(control.Status) bool {
		conn, err := net.Dial("unix", g.runtime()+"/grace.sock")
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
}

// upgradeUnasked is for where the control socket may be missing.
func (g *grace) upgradeUnasked(random *rand.Rand) {
	const upgraded = "upgraded"
	said := g.said(upgraded)
	g.signal(syscall.SIGHUP)
	g.awaitSaid(upgraded, said)
	if random.IntN(2) == 0 {
		g.settle()
		g.kill(g.victim(random, "current"))
	}
}

func runtimeFull(g *grace, random *rand.Rand) {
	around := filepath.Dir(g.runtime())
	fill := pick(random, fillInodes, fillBytes)
	g.must(fill(around))
	g.upgradeUnasked(random)
	left, err := filepath.Glob(around + "/full*")
	g.must(err)
	for _, path := range left {
		g.must(os.Remove(path))
	}
}

func fillInodes(dir string) error {
	for n := 0; ; n++ {
		err := os.WriteFile(fmt.Sprintf("%s/full-%d", dir, n), nil, 0o600)
		if isFull(err) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func fillBytes(dir string) error {
	err := os.WriteFile(dir+"/full", make([]byte, 1<<20), 0o600)
	if isFull(err) {
		return nil
	}
	return fmt.Errorf("the file system has no end: %w", err)
}

func isFull(err error) bool {
	return err != nil && strings.Contains(err.Error(), syscall.ENOSPC.Error())
}

// noDescriptors takes grace's descriptors, all but a few.
func noDescriptors(g *grace, random *rand.Rand) {
	pid, _ := g.pid()
	descriptors, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	g.must(err)
	few := pick(random, 1, len(descriptors), len(descriptors)+1+random.IntN(8))
	g.limited(random, unix.RLIMIT_NOFILE, uint64(few))
}

// noProcesses keeps grace from having another process or thread.
func noProcesses(g *grace, random *rand.Rand) { g.limited(random, unix.RLIMIT_NPROC, 1) }

// limited has an upgrade and a restart be tried within a limit of grace's, and one succeed after it.
func (g *grace) limited(random *rand.Rand, resource int, soft uint64) {
	pid, _ := g.pid()
	var before unix.Rlimit
	g.must(g.limit(pid, resource, nil, &before))
	victim := g.victim(random, "current")
	g.must(g.limit(pid, resource, &unix.Rlimit{Cur: min(soft, before.Max), Max: before.Max}, nil))
	switch random.IntN(3) {
	case 0:
		g.signal(syscall.SIGHUP)
	case 1:
		g.kill(victim)
	case 2:
		g.signal(syscall.SIGHUP)
		if undoneWithoutLoss(g) { // it may have a successor by now, and nobody is started again for its queue
			g.kill(victim)
			g.shares = true
		}
	}
	g.unanswered(random, 20)
	g.must(g.limit(pid, resource, &before, nil))
	g.mustUpgradeAgain(another(g, random))
}

// mustUpgradeAgain is mustUpgrade where a request that was made before may be answered first.
func (g *grace) mustUpgradeAgain(command []string) {
	g.await("it serves again", serving)
	g.mustUpgrade(command)
}

// limit is prlimit(2) by the user of grace: root may lack the right to do it for another one.
func (g *grace) limit(pid, resource int, set, was *unix.Rlimit) error {
	user := g.attributes().Credential
	if user == nil {
		return unix.Prlimit(pid, resource, set, was)
	}
	failed := make(chan error)
	go func() {
		runtime.LockOSThread() // and the thread ends with the goroutine: nobody else gets its user
		_, _, gid := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(user.Gid), uintptr(user.Gid), uintptr(user.Gid))
		_, _, uid := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(user.Uid), uintptr(user.Uid), uintptr(user.Uid))
		if gid != 0 || uid != 0 {
			failed <- fmt.Errorf("cannot become user %d: %w, %w", user.Uid, gid, uid)
			return
		}
		failed <- unix.Prlimit(pid, resource, set, was)
	}()
	return <-failed
}
