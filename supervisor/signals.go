package supervisor

import (
	"errors"
	"os"
	"os/signal"
	"syscall"

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
	terminal bool // there was one at the start
	post     func(event)
	reap     func() (int, error)
}

// catchSignals comes before anybody can learn grace's pid. What is caught waits
// for listen.
func catchSignals() *signals {
	s := &signals{terminal: hasTerminal()}
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
	c := make(chan os.Signal, 2*len(which))
	signal.Notify(c, which...)
	s.incoming = append(s.incoming, c)
}

// listen begins to hand events on. It ends with the process: a second QUIT that
// finds nobody any more would end grace by a dump of its stacks.
func (s *signals) listen(post func(event), reap func() (int, error)) {
	s.post, s.reap = post, reap
	for _, c := range s.incoming {
		go func() {
			for sig := range c {
				s.heed(sig.(syscall.Signal))
			}
		}()
	}
}

func (s *signals) heed(sig syscall.Signal) {
	switch sig {
	case syscall.SIGHUP:
		s.hangUp()
	case syscall.SIGTERM, syscall.SIGINT:
		s.post(stopRequested{})
	case syscall.SIGQUIT:
		s.post(killRequested{})
	case syscall.SIGUSR2:
		s.post(noticed{"signal refused", "USR2 is kept for replacing grace itself, which this version cannot do; upgrade the app with HUP"})
	case syscall.SIGCHLD:
		if _, err := s.reap(); err != nil {
			s.post(noticed{"cannot reap orphans", err.Error()})
		}
	default:
		s.post(signalReceived{sig})
	}
}

// hangUp tells a closed terminal from somebody who wants an upgrade.
func (s *signals) hangUp() {
	if s.terminal && !hasTerminal() {
		s.post(noticed{"the terminal is gone", "stopping as its shell would"})
		s.post(stopRequested{})
		return
	}
	s.post(upgradeRequested{})
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
