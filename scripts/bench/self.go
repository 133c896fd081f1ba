package main

import (
	"fmt"
	"math/rand/v2"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"
)

const beginningRounds = 15

// self measures the program itself: how long its start takes, its memory, and whether it sleeps.
func (b bench) self() {
	b.firstByte()
	b.asleep()
}

// firstByte compares the time until an app answers that grace starts with its bare start.
func (b bench) firstByte() {
	var version, bare, least, held, captured series
	turns := []func(){
		func() { version.addTime(b.runVersion()) },
		func() { bare.addTime(b.bareStart(nil)) },
		func() { least.addTime(b.startLeast()) },
		func() { address := freeAddress(); held.addTime(b.startGrace(address, "--listen", "web="+address)) },
		func() { captured.addTime(b.startGrace(freeAddress())) },
	}
	for range beginningRounds {
		for _, n := range rand.Perm(len(turns)) {
			turns[n]()
		}
	}
	t := newTable("From the fork to the first response of the app, in ms: median (min..max)", "\ttime\t\tratio to the bare start\t\tat most")
	defer t.end()
	aim := 1.3*bare.median() + 5
	t.line("grace --version, to its end\t%v", version)
	t.line("bare start\t%v\t%v", bare, bare.over(bare))
	t.line("the smallest supervisor\t%v\t%v", least, least.over(bare))
	t.line("grace run, held\t%v\t%v\t%.2f", held, held.over(bare), aim)
	t.line("grace run, captured\t%v\t%v\t%.2f", captured, captured.over(bare), aim)
	b.figures.add("start of grace run to the first response, held (1.3 x a bare start + 5 ms)", aim, held.median(), "ms")
	b.figures.add("start of grace run to the first response, captured (1.3 x a bare start + 5 ms)", aim, captured.median(), "ms")
}

func (b bench) startLeast() time.Duration {
	listener, address := keptListener()
	defer unix.Close(listener)
	begun := time.Now()
	s := b.startSmallestAt(listener, address, nil)
	took := time.Since(begun)
	s.stop()
	return took
}

func (b bench) runVersion() time.Duration {
	begun := time.Now()
	check(exec.Command(b.grace, "--version").Run())
	return time.Since(begun)
}

// startGrace gives the app the address too, which it binds if it inherits no socket.
func (b bench) startGrace(address string, flags ...string) time.Duration {
	p, begun := newProbe(address), time.Now()
	s := b.begin(flags, "-addr", address)
	defer s.stop()
	_, answered := p.awaitOther(0)
	s.awaitReady() // stopped earlier, grace would report a failed start
	return answered.Sub(begun)
}

const (
	settled    = 10 * time.Second // for what Go's runtime does after work, such as returning memory
	asleepTime = 60 * time.Second
)

// asleep takes the memory of a held and of a captured app's grace before upgrades and after them, and then counts
// the wake-ups of both.
func (b bench) asleep() {
	held, captured := sleeper{supervised: b.supervise(nil)}, sleeper{supervised: b.superviseCaptured(unsettled)}
	defer held.stop()
	defer captured.stop()
	all := []*sleeper{&held, &captured}
	for _, s := range all {
		s.upgradeOften()
	}
	time.Sleep(settled)
	for _, s := range all {
		s.idle = memoryOf(s.Cmd.Process.Pid)
		s.before = wakeups(s.Cmd.Process.Pid)
	}
	time.Sleep(asleepTime)
	for _, s := range all {
		s.woken = since(s.before, wakeups(s.Cmd.Process.Pid))
	}
	printSleepers(map[string]*sleeper{"held": &held, "captured": &captured}, b.figures)
}

// sleeper is a grace process that has nothing to do any more.
type sleeper struct {
	*supervised
	atStart, after, idle memory
	before               map[string]int
	woken                int
}

func (s *sleeper) upgradeOften() {
	s.atStart = memoryOf(s.Cmd.Process.Pid)
	for range memoryUpgrades {
		s.hangUp()
		s.awaitReady()
		s.awaitEnd()
	}
	s.after = memoryOf(s.Cmd.Process.Pid)
}

func printSleepers(all map[string]*sleeper, figures *summary) {
	t := newTable(fmt.Sprintf("grace with one instance, without metrics: memory in MB, and wake-ups in %s without work", asleepTime),
		fmt.Sprintf("\tresident at the start\tproportional\tresident after %d upgrades\tproportional\tresident %s later\tproportional\twake-ups", memoryUpgrades, settled))
	defer t.end()
	for _, name := range []string{"held", "captured"} {
		s := all[name]
		t.line("%s\t%.1f\t%.1f\t%.1f\t%.1f\t%.1f\t%.1f\t%d", name, s.atStart.resident, s.atStart.shared, s.after.resident, s.after.shared, s.idle.resident, s.idle.shared, s.woken)
		figures.add("resident memory of grace, "+name+", idle", 12, s.idle.resident, "MB")
		figures.add("wake-ups of grace, "+name, 0, float64(s.woken), "in "+asleepTime.String())
	}
}
