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
	toApp    SignalMap
	incoming []chan os.Signal
	caught   []os.Signal
	terminal bool // there was one at the start
	post     func(machine.Event) bool
	reap     func() (int, error)
	catching chan struct{} // closed when all are caught
	heeding  sync.WaitGroup
	late     chan syscall.Signal // what nobody took
}

// mostLate is room for what comes while another grace process takes over.
const mostLate = 64

// catchSignals comes before anybody can learn grace's pid. What is caught waits
// for listen.
func catchSignals(toApp SignalMap) *signals {
	s := &signals{toApp: toApp, terminal: hasTerminal(), late: make(chan syscall.Signal, mostLate), catching: make(chan struct{})}
	for _, sig := range []os.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGUSR2, syscall.SIGTTIN, syscall.SIGTTOU, syscall.SIGCHLD} {
		s.catch(sig)
	}
	if !signal.Ignored(syscall.SIGHUP) { // nohup means it
		s.catch(syscall.SIGHUP)
	}
	if !s.terminal {
		s.catch(syscall.SIGWINCH)
	}
	go s.catchOthers()
	return s
}

// catchOthers is for those that nobody sends to stop or to upgrade a program. Go's runtime takes 20 µs for each, and the start does not
// wait for that.
func (s *signals) catchOthers() {
	defer close(s.catching)
	s.catch(forwarded...)
	for _, sig := range slices.Sorted(maps.Keys(s.toApp)) {
		if !slices.Contains(s.caught, os.Signal(sig)) {
			s.catch(sig)
		}
	}
}

// catch has a channel of its own, because os/signal drops what a full one cannot
// take: a flood of HUP must not cost a TERM.
func (s *signals) catch(which ...os.Signal) {
	s.caught = append(s.caught, which...)
	c := make(chan os.Signal, 2*len(which))
	signal.Notify(c, which...)
	s.incoming = append(s.incoming, c)
}

// catchHangUp is for what was ignored at the start.
func (s *signals) catchHangUp() {
	<-s.catching
	s.catch(syscall.SIGHUP)
}

// listen begins to hand events on. It ends with the process: a second QUIT that
// finds nobody any more would end grace by a dump of its stacks.
func (s *signals) listen(post func(machine.Event) bool, reap func() (int, error)) {
	s.post, s.reap = post, reap
	<-s.catching
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
