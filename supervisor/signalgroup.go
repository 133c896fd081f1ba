package supervisor

import (
	"os"
	"os/signal"
	"slices"
	"syscall"
)

// signalGroup is what is caught together, beside the start: for each signal Go's runtime goes to the thread that it keeps for their
// mask, and back (ensureSigM in its signal_unix.go), which takes up to 0.2 ms.
type signalGroup struct {
	signals  []os.Signal
	incoming []chan os.Signal
	caught   chan struct{} // closed when all are
}

// catchGroup has a channel for each set, because os/signal drops what a full one cannot take: a flood of HUP must not cost a TERM.
func catchGroup(sets ...[]os.Signal) *signalGroup {
	g := &signalGroup{signals: slices.Concat(sets...), caught: make(chan struct{})}
	for _, set := range sets {
		g.incoming = append(g.incoming, make(chan os.Signal, 2*len(set)))
	}
	go func() {
		defer close(g.caught)
		for i, c := range g.incoming {
			signal.Notify(c, sets[i]...)
		}
	}()
	return g
}

// add returns when the signal is caught.
func (g *signalGroup) add(sig os.Signal) {
	<-g.caught
	c := make(chan os.Signal, 2)
	signal.Notify(c, sig)
	g.signals, g.incoming = append(g.signals, sig), append(g.incoming, c)
}

// ignore closes the channels.
func (g *signalGroup) ignore() {
	<-g.caught
	for _, sig := range g.signals {
		if sig != syscall.SIGCHLD { // ignoring that one has the kernel reap all children (sigaction(2))
			signal.Ignore(sig)
		}
	}
	for _, c := range g.incoming {
		signal.Stop(c)
		close(c)
	}
}
