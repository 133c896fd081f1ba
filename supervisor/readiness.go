package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/gracerun/grace/childproc"
	"github.com/gracerun/grace/handoff"
)

// heeds reports whether the app's own word ends the wait.
func (r Readiness) heeds() bool { return r.Mode == ReadyAuto || r.Mode == ReadyNotify }

// vigil waits for one instance to be ready. It belongs to one goroutine.
type vigil struct {
	apps     *apps
	app      *app
	ctx      context.Context
	launch   *launch
	instance int
	pid      int
	begun    time.Time
	told     string // the last reason that was posted
}

// awaitReady posts readied once the instance serves; the machine has the
// deadline, and ctx ends with the wait.
func (v *vigil) awaitReady() {
	if v.app.grant.Ready != nil && v.apps.options.Readiness.heeds() {
		v.awaitByte()
		return
	}
	switch v.apps.options.Readiness.Mode {
	case ReadyAuto:
		v.awaitSeen()
	case ReadyNotify:
		v.say("it has not sent READY=1 to NOTIFY_SOCKET")
		v.awaitTouch()
	case ReadyDelay:
		v.awaitDelay()
	case ReadyHTTP, ReadyCommand:
		v.awaitProbe()
	}
}

func (v *vigil) say(why string) {
	if why != v.told {
		v.told = why
		v.apps.post(unreadied{v.instance, why})
	}
}

func (v *vigil) ready() { v.apps.post(readied{v.instance, false}) }

// awaitByte is for tableflip's ready pipe: the byte 42.
func (v *vigil) awaitByte() {
	v.say("it has not called tableflip's Ready")
	var b [1]byte
	if _, err := v.app.grant.Ready.Read(b[:]); err == nil && b[0] == tableflipReady {
		v.apps.post(readied{v.instance, true})
	}
}

const tableflipReady = 42

// awaitSeen looks from outside. An app that once said READY=1 itself has to say
// it again: it may warm up after it listens.
func (v *vigil) awaitSeen() {
	if v.app.start.mustNotify {
		v.say("it has not sent READY=1 to NOTIFY_SOCKET, as its predecessors did")
		return
	}
	if len(v.apps.listeners) == 0 {
		v.awaitDelay()
		return
	}
	v.look(func(unseen []string, err error) bool {
		switch {
		case errors.Is(err, childproc.ErrCannotLook):
			return v.fallBack(err)
		case err != nil:
			v.say(err.Error())
		case len(unseen) > 0:
			v.say("nothing in it waits for connections on " + strings.Join(unseen, ", "))
		default:
			v.ready()
			return true
		}
		return false
	})
}

// fallBack takes an instance for ready that could not be looked at for as long
// as the delay: another look may see more.
func (v *vigil) fallBack(err error) bool {
	v.say(err.Error())
	if time.Since(v.begun) < v.apps.options.Readiness.Delay {
		return false
	}
	v.apps.post(fellBack{v.instance, err.Error()})
	v.ready()
	return true
}

// awaitTouch learns whether the app has anything to do with its sockets, for the
// sake of a better message when it fails.
func (v *vigil) awaitTouch() {
	all := len(v.apps.listeners)
	if v.app.start.generation != 1 || all == 0 {
		return
	}
	v.look(func(unseen []string, err error) bool {
		if err != nil || len(unseen) == all {
			return false
		}
		v.apps.post(touched{v.instance})
		return true
	})
}

// look calls enough with the names of the sockets that nobody was seen to wait
// on, or with why that cannot be told now, until it is satisfied.
func (v *vigil) look(enough func(unseen []string, err error) bool) {
	inodes := make([]uint64, len(v.apps.listeners))
	for i, l := range v.apps.listeners {
		inodes[i] = l.Inode()
	}
	lookout := childproc.NewLookout(inodes)
	for {
		seen, err := v.lookOnce(lookout)
		if enough(unseen(v.apps.listeners, seen), err) || v.pause(pauseAfter(time.Since(v.begun))) != nil {
			return
		}
	}
}

func (v *vigil) lookOnce(lookout *childproc.Lookout) ([]bool, error) {
	pids, err := childproc.Tree(v.pid)
	if errors.Is(err, os.ErrNotExist) {
		return make([]bool, len(v.apps.listeners)), nil // it ends; the machine is told
	}
	if err != nil {
		return nil, err
	}
	return lookout.Look(pids)
}

func unseen(listeners []*handoff.Listener, seen []bool) []string {
	var names []string
	for i, l := range listeners {
		if i >= len(seen) || !seen[i] {
			names = append(names, fmt.Sprintf("%s (%s)", l.Name(), l.Bound()))
		}
	}
	return names
}

// pauseAfter makes a look late by one percent of the start at most: there is no
// event to wait for, and looking costs.
func pauseAfter(elapsed time.Duration) time.Duration {
	return min(max(elapsed/100, 500*time.Microsecond), 25*time.Millisecond)
}

func (v *vigil) pause(d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-v.ctx.Done():
		return v.ctx.Err()
	}
}

func (v *vigil) awaitDelay() {
	d := v.apps.options.Readiness.Delay
	v.say(fmt.Sprintf("it has not lived for %s (--ready-delay)", d))
	if v.pause(d) == nil {
		v.ready()
	}
}
