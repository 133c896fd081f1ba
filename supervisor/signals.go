package supervisor

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/gracerun/grace/supervisor/control"
	"github.com/gracerun/grace/supervisor/machine"
	"golang.org/x/sys/unix"
)

// forwarded are the signals that belong to the app. They are named one by one:
// a channel that asks for all gets those that Go's runtime sends itself
// (SIGURG for preemption).
var forwarded = append([]os.Signal{syscall.SIGUSR1, syscall.SIGALRM}, realtime()...)

// realtime begins after those that Go's runtime and the C libraries keep.
func realtime() []os.Signal {
	var signals []os.Signal
	for n := firstRealtime; n <= lastRealtime; n++ {
		signals = append(signals, syscall.Signal(n))
	}
	return signals
}

// SignalMap says which signals the app gets for some that grace receives. grace gives up its own use of them.
type SignalMap map[syscall.Signal]syscall.Signal

// mappable are the signals that may be mapped. TERM is not: service managers and containers stop grace with it.
var mappable = append(slices.Clone(forwarded), syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGUSR2, syscall.SIGWINCH, syscall.SIGTTIN, syscall.SIGTTOU)

func (m SignalMap) validate() error {
	for _, received := range slices.Sorted(maps.Keys(m)) {
		sent := m[received]
		switch {
		case !slices.Contains(mappable, os.Signal(received)):
			return fmt.Errorf("--signal %s=%s: grace needs %[1]s itself, or cannot receive it: map HUP, INT, QUIT, USR1, USR2, ALRM, WINCH, TTIN, TTOU or 35 to 64",
				control.SignalName(received), control.SignalName(sent))
		case sent == syscall.SIGKILL || sent == syscall.SIGSTOP:
			return fmt.Errorf("--signal %s=%s: no app can handle %[2]s", control.SignalName(received), control.SignalName(sent))
		}
	}
	return nil
}

// signals turns the process's signals into events.
type signals struct {
	toApp             SignalMap
	first, rest       *signalGroup
	planned, catching sync.Once     // of the rest
	terminal          bool          // there was one at the start
	listening         chan struct{} // closed when there is a post
	post              func(machine.Event) bool
	reap              func() (int, error)
	heeding           sync.WaitGroup
	late              chan syscall.Signal // what nobody took
}

// mostLate is room for what comes while another grace process takes over.
const mostLate = 64

// catchSignals begins with those that stop grace and that have it upgrade. What is caught waits for listen.
func catchSignals(toApp SignalMap) *signals {
	first := [][]os.Signal{{syscall.SIGTERM}, {syscall.SIGINT}, {syscall.SIGQUIT}, {syscall.SIGCHLD}}
	if !signal.Ignored(syscall.SIGHUP) { // nohup means it
		first = append(first, []os.Signal{syscall.SIGHUP})
	}
	return &signals{toApp: toApp, first: catchGroup(first...), terminal: hasTerminal(), listening: make(chan struct{}), late: make(chan syscall.Signal, mostLate)}
}

// afterStart keeps the work from an app that starts faster.
const afterStart = 20 * time.Millisecond

// hear catches the rest soon after an app was started, which would have to wait for that, and at the latest before anybody reads that
// it serves, and may send any of them.
func (s *signals) hear(_ time.Time, l line) {
	switch {
	case serves(l):
		s.awaitAll()
	case l.Fact == machine.InstanceStarted:
		s.planned.Do(func() { time.AfterFunc(afterStart, s.catchRest) })
	}
}

// awaitAll comes before anybody can read grace's pid in a file, too.
func (s *signals) awaitAll() {
	s.catchRest()
	<-s.first.caught
	<-s.rest.caught
}

func (s *signals) catchRest() {
	s.catching.Do(func() {
		s.rest = catchGroup(s.others()...)
		s.heedAll(s.rest)
	})
}

func (s *signals) others() [][]os.Signal {
	others := [][]os.Signal{forwarded, {syscall.SIGUSR2}, {syscall.SIGTTIN}, {syscall.SIGTTOU}}
	if !s.terminal {
		others = append(others, []os.Signal{syscall.SIGWINCH})
	}
	for _, sig := range slices.Sorted(maps.Keys(s.toApp)) {
		if !slices.Contains(slices.Concat(append(others, s.first.signals)...), os.Signal(sig)) {
			others = append(others, []os.Signal{sig})
		}
	}
	return others
}

// catchHangUp is for what was ignored at the start.
func (s *signals) catchHangUp() { s.first.add(syscall.SIGHUP) }

// listen begins to hand events on. It ends with the process: a second QUIT that
// finds nobody any more would end grace by a dump of its stacks.
func (s *signals) listen(post func(machine.Event) bool, reap func() (int, error)) {
	s.post, s.reap = post, reap
	close(s.listening)
	<-s.first.caught
	s.heedAll(s.first)
}

func (s *signals) heedAll(g *signalGroup) {
	for _, c := range g.incoming {
		s.heeding.Go(func() {
			<-s.listening
			for sig := range c {
				s.heed(sig.(syscall.Signal))
			}
		})
	}
}

// stop comes after the loop's end, ignores signals from now on, and gives those that
// the loop has not taken.
func (s *signals) stop() []syscall.Signal {
	s.first.ignore()
	s.catchRest() // it may be about to begin
	s.rest.ignore()
	s.heeding.Wait()
	close(s.late)
	var late []syscall.Signal
	for sig := range s.late {
		late = append(late, sig)
	}
	return late
}

// catches reports whether one of those that catchSignals begins with is not left as it was at the start.
func (s *signals) catches(sig os.Signal) bool { return slices.Contains(s.first.signals, sig) }

func (s *signals) heed(sig syscall.Signal) {
	if sig == syscall.SIGCHLD {
		if _, err := s.reap(); err != nil {
			s.post(machine.Noticed{Text: "cannot reap orphans", Why: err.Error()})
		}
		return
	}
	if s.post(s.meaning(sig)) {
		return
	}
	select {
	case s.late <- sig:
	default: // so many that one more means nothing
	}
}

func (s *signals) meaning(sig syscall.Signal) machine.Event {
	if sent, mapped := s.toApp[sig]; mapped {
		return machine.SignalReceived{Signal: sent}
	}
	switch sig {
	case syscall.SIGHUP:
		return s.hangUp()
	case syscall.SIGTERM, syscall.SIGINT:
		return machine.StopRequested{}
	case syscall.SIGQUIT:
		return machine.KillRequested{}
	case syscall.SIGUSR2:
		return machine.ReexecRequested{}
	case syscall.SIGTTIN:
		return machine.ScaleRequested{By: 1}
	case syscall.SIGTTOU:
		return machine.ScaleRequested{By: -1}
	}
	return machine.SignalReceived{Signal: sig}
}

// hangUp tells a closed terminal from somebody who wants an upgrade.
func (s *signals) hangUp() machine.Event {
	if s.terminal && !hasTerminal() {
		s.post(machine.Noticed{Text: "the terminal was closed", Why: "grace stops, as a program does whose terminal hangs up"})
		return machine.StopRequested{}
	}
	return machine.UpgradeRequested{}
}

// hasTerminal: opening /dev/tty gives ENXIO to a process without a controlling
// terminal (tty(4)).
func hasTerminal() bool {
	fd, err := unix.Open("/dev/tty", unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return !errors.Is(err, unix.ENXIO) && !errors.Is(err, unix.ENOENT)
	}
	unix.Close(fd)
	return true
}

// Go's runtime keeps 32 to 34 for the C library.
const (
	firstRealtime = 35
	lastRealtime  = 64
)
