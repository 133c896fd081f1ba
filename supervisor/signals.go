package supervisor

import (
	"errors"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"

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

// signals turns the process's signals into events.
type signals struct {
	incoming []chan os.Signal
	caught   []os.Signal
	terminal bool // there was one at the start
	post     func(machine.Event) bool
	reap     func() (int, error)
	heeding  sync.WaitGroup
	late     chan syscall.Signal // what nobody took
}

// mostLate is room for what comes while another grace process takes over.
const mostLate = 64

// catchSignals comes before anybody can learn grace's pid. What is caught waits
// for listen.
func catchSignals() *signals {
	s := &signals{terminal: hasTerminal(), late: make(chan syscall.Signal, mostLate)}
	for _, sig := range []os.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGUSR2, syscall.SIGCHLD} {
		s.catch(sig)
	}
	if !signal.Ignored(syscall.SIGHUP) { // nohup means it
		s.catch(syscall.SIGHUP)
	}
	s.catch(forwarded...)
	if !s.terminal {
		s.catch(syscall.SIGWINCH)
	}
	return s
}

// catch has a channel of its own, because os/signal drops what a full one cannot
// take: a flood of HUP must not cost a TERM.
func (s *signals) catch(which ...os.Signal) {
	s.caught = append(s.caught, which...)
	c := make(chan os.Signal, 2*len(which))
	signal.Notify(c, which...)
	s.incoming = append(s.incoming, c)
}

// listen begins to hand events on. It ends with the process: a second QUIT that
// finds nobody any more would end grace by a dump of its stacks.
func (s *signals) listen(post func(machine.Event) bool, reap func() (int, error)) {
	s.post, s.reap = post, reap
	for _, c := range s.incoming {
		s.heeding.Go(func() {
			for sig := range c {
				s.heed(sig.(syscall.Signal))
			}
		})
	}
}

// stop comes after the loop's end, ignores signals from now on, and gives those that
// the loop has not taken.
func (s *signals) stop() []syscall.Signal {
	for _, which := range s.caught {
		if which != syscall.SIGCHLD { // ignoring that one has the kernel reap all children (sigaction(2))
			signal.Ignore(which)
		}
	}
	for _, c := range s.incoming {
		signal.Stop(c)
		close(c)
	}
	s.heeding.Wait()
	close(s.late)
	var late []syscall.Signal
	for sig := range s.late {
		late = append(late, sig)
	}
	return late
}

// catches reports whether a signal is not left as it was at the start.
func (s *signals) catches(sig os.Signal) bool { return slices.Contains(s.caught, sig) }

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
	switch sig {
	case syscall.SIGHUP:
		return s.hangUp()
	case syscall.SIGTERM, syscall.SIGINT:
		return machine.StopRequested{}
	case syscall.SIGQUIT:
		return machine.KillRequested{}
	case syscall.SIGUSR2:
		return machine.ReexecRequested{}
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
