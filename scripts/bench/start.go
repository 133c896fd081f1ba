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

func (b bench) start() error {
	if err := b.firstResponse(); err != nil {
		return err
	}
	return b.shim()
}

// firstResponse compares upgrades with bare starts of the same app.
func (b bench) firstResponse() error {
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
		m, err := b.compareStarts(kind.delay, kind.rounds)
		if err != nil {
			return err
		}
		t.line("%s\tbare start\t%v\t", kind.name, m.bare)
		t.line("\tupgrade, readiness seen\t%v\t%v", m.seen.answered, m.seen.answered.minus(m.bare))
		t.line("\t  until grace knows\t%v\t%v", m.seen.known, m.seen.known.minus(m.bare))
		t.line("\tupgrade, app says READY=1\t%v\t%v", m.told.answered, m.told.answered.minus(m.bare))
		t.line("\t  until grace knows\t%v\t%v", m.told.known, m.told.known.minus(m.bare))
	}
	return nil
}

// starts is what one app's starts take.
type starts struct {
	bare       series
	seen, told upgrades
}

// upgrades is what upgrades take, from SIGHUP until the new process first answered, and until grace knew it to be ready.
type upgrades struct{ answered, known series }

func (b bench) compareStarts(delay time.Duration, rounds int) (m starts, err error) {
	app := []string{"-delay", delay.String()}
	seen, err := b.supervise(nil, append(app, "-silent")...)
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, seen.stop()) }()
	told, err := b.supervise(nil, app...)
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, told.stop()) }()
	for range rounds {
		took, err := b.bareStart(app)
		if err != nil {
			return m, fmt.Errorf("bare start: %w", err)
		}
		m.bare.addTime(took)
		if err := m.seen.measure(seen); err != nil {
			return m, err
		}
		if err := m.told.measure(told); err != nil {
			return m, err
		}
	}
	return m, nil
}

// measure upgrades once, and returns when the old generation has ended.
func (u *upgrades) measure(s *supervised) error {
	p, err := newProbe(s.address)
	if err != nil {
		return err
	}
	old := s.pids[0]
	begun, err := s.hangUp()
	if err != nil {
		return err
	}
	answered, _, err := p.awaitOther(old)
	if err != nil {
		return err
	}
	ready, err := s.awaitReady()
	if err != nil {
		return err
	}
	u.answered.addTime(answered.Sub(begun))
	u.known.addTime(ready.Read.Sub(begun))
	_, err = s.await("generation ended", s.generation-1)
	return err
}

func (b bench) bareStart(app []string) (time.Duration, error) {
	address, err := freeAddress()
	if err != nil {
		return 0, err
	}
	p, err := newProbe(address)
	if err != nil {
		return 0, err
	}
	begun := time.Now()
	pid, err := syscall.ForkExec(b.app, append([]string{b.app, "-addr", address}, app...), &syscall.ProcAttr{
		Env: os.Environ(), Files: []uintptr{0, 1, 2},
	})
	if err != nil {
		return 0, err
	}
	answered, _, err := p.awaitOther(0)
	return answered.Sub(begun), errors.Join(err, syscall.Kill(pid, syscall.SIGTERM), reap(pid))
}

func freeAddress() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return ln.Addr().String(), ln.Close()
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
func (b bench) shim() error {
	path, err := exec.LookPath("true")
	if err != nil {
		return err
	}
	errand := shim.Spec{Path: path, Umask: -1, Report: 3, Capture: -1}
	var bare, through series
	for range shimRounds {
		took, err := runOnce(path, "true")
		if err != nil {
			return err
		}
		bare.addTime(took)
		if took, err = runOnce(b.grace, errand.Argv([]string{"true"})...); err != nil {
			return fmt.Errorf("the shim: %w", err)
		}
		through.addTime(took)
	}
	t := newTable("Running `true` to its end, in ms: median (min..max)", "how\ttime\t\tadded")
	defer t.end()
	t.line("fork and exec\t%v\t", bare)
	t.line("through the shim\t%v\t%v", through, through.minus(bare))
	return nil
}

// runOnce fails if the shim reports an error to descriptor 3.
func runOnce(path string, argv ...string) (time.Duration, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer r.Close()
	begun := time.Now()
	pid, err := syscall.ForkExec(path, argv, &syscall.ProcAttr{
		Env: os.Environ(), Files: []uintptr{0, 1, 2, w.Fd()},
	})
	w.Close()
	if err != nil {
		return 0, err
	}
	err = reap(pid)
	took := time.Since(begun)
	if report, _ := io.ReadAll(r); err == nil && len(report) > 0 && string(report) != shim.Executing {
		err = errors.New(string(report))
	}
	return took, err
}
