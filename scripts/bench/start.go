package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/gracerun/grace/childproc/shim"
)

func (b bench) start() {
	b.firstResponse()
	b.shim()
}

// firstResponse compares upgrades with bare starts of the same app.
func (b bench) firstResponse() {
	t := newTable("Time to the first response of the new process, in ms: median (min..max)",
		"app\tmeasured\ttime\t\tadded by grace")
	defer t.end()
	for _, kind := range []struct {
		name   string
		delay  time.Duration
		rounds int
	}{
		{"quick to start", 0, 60},
		{"400 ms to start", 400 * time.Millisecond, 12},
	} {
		m := b.compareStarts(kind.delay, kind.rounds)
		t.line("%s\tbare start\t%v\t", kind.name, m.bare)
		t.line("\tupgrade, readiness seen\t%v\t%v", m.seen.answered, m.seen.answered.minus(m.bare))
		t.line("\t  until grace knows\t%v\t%v", m.seen.known, m.seen.known.minus(m.bare))
		t.line("\tupgrade, app says READY=1\t%v\t%v", m.told.answered, m.told.answered.minus(m.bare))
		t.line("\t  until grace knows\t%v\t%v", m.told.known, m.told.known.minus(m.bare))
	}
}

// starts is what one app's starts take.
type starts struct {
	bare       series
	seen, told upgrades
}

// upgrades is what upgrades take, from SIGHUP until the new process first answered, and until grace knew it to be ready.
type upgrades struct{ answered, known series }

func (b bench) compareStarts(delay time.Duration, rounds int) (m starts) {
	app := []string{"-delay", delay.String()}
	seen := b.supervise(nil, append(app, "-silent")...)
	defer seen.stop()
	told := b.supervise(nil, app...)
	defer told.stop()
	for range rounds {
		m.bare.addTime(b.bareStart(app))
		m.seen.measure(seen)
		m.told.measure(told)
	}
	return m
}

// measure upgrades once, and returns when the old generation has ended.
func (u *upgrades) measure(s *supervised) {
	p, old := newProbe(s.address), s.pids[0]
	begun := s.hangUp()
	answered := p.awaitOther(old)
	u.answered.addTime(answered.Sub(begun))
	u.known.addTime(s.awaitReady().Read.Sub(begun))
	s.awaitEnd()
}

func (b bench) bareStart(app []string) time.Duration {
	address := freeAddress()
	p, begun := newProbe(address), time.Now()
	pid := must(syscall.ForkExec(b.app, append([]string{b.app, "-addr", address}, app...), &syscall.ProcAttr{
		Env: os.Environ(), Files: []uintptr{0, 1, 2},
	}))
	var answered time.Time
	err := attempt(func() { answered = p.awaitOther(0) })
	check(errors.Join(err, syscall.Kill(pid, syscall.SIGTERM), reap(pid)))
	return answered.Sub(begun)
}

func freeAddress() string {
	ln := must(net.Listen("tcp", "127.0.0.1:0"))
	defer ln.Close()
	return ln.Addr().String()
}

func reap(pid int) error {
	var status syscall.WaitStatus
	_, err := syscall.Wait4(pid, &status, 0, nil)
	if err == nil && status.ExitStatus() != 0 {
		return fmt.Errorf("process %d ended with %#x", pid, status)
	}
	return err
}

const shimRounds = 200

// shim compares the start of a program through grace's shim with its bare start.
func (b bench) shim() {
	path := must(exec.LookPath("true"))
	start := shim.Spec{Path: path, Umask: -1, Report: 3, Capture: -1}
	var bare, through series
	for range shimRounds {
		bare.addTime(runOnce(path, "true"))
		through.addTime(runOnce(b.grace, start.Argv([]string{"true"})...))
	}
	t := newTable("Running `true` to its end, in ms: median (min..max)", "how\ttime\t\tadded")
	defer t.end()
	t.line("fork and exec\t%v\t", bare)
	t.line("through the shim\t%v\t%v", through, through.minus(bare))
}

// runOnce fails if the shim reports an error to descriptor 3.
func runOnce(path string, argv ...string) time.Duration {
	r, w, err := os.Pipe()
	check(err)
	defer r.Close()
	begun := time.Now()
	pid, err := syscall.ForkExec(path, argv, &syscall.ProcAttr{
		Env: os.Environ(), Files: []uintptr{0, 1, 2, w.Fd()},
	})
	w.Close()
	check(err)
	check(reap(pid))
	took := time.Since(begun)
	if report, _ := io.ReadAll(r); len(report) > 0 && string(report) != shim.Executing {
		check(fmt.Errorf("%s: %s", path, report))
	}
	return took
}
