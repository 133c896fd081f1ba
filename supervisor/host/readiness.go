package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/gracerun/grace/childproc"
	"github.com/gracerun/grace/internal/nap"
	"github.com/gracerun/grace/supervisor/machine"
)

// heeds reports whether the app's own word counts.
func (r Readiness) heeds() bool { return r.Mode == ReadyAuto || r.Mode == ReadyNotify }

// readinessCheck waits for one instance to be ready. It belongs to one goroutine.
type readinessCheck struct {
	prober
	instance int
	begun    time.Time
	moved    time.Time       // when the app was started, or has listened last or said that it is ready: it may be so soon
	word     <-chan struct{} // closed when it has said so; nil once that was seen
	looks    int
	told     string // the last reason that was posted
	closed   *closedSockets
	locks    lockLook
}

func newReadinessCheck(a *Host, app *InstanceProcess, ctx context.Context, l *LaunchSpec, begun time.Time) *readinessCheck {
	return &readinessCheck{prober: prober{a, app, ctx, l}, instance: app.start.Instance, begun: begun, moved: begun, word: app.reader.ready, closed: newClosedSockets(a, app.mainPID)}
}

// awaitReady posts readied once the instance serves; the machine has the
// deadline, and ctx ends with the wait.
func (v *readinessCheck) awaitReady() {
	if v.apps.Options.Readiness.Mode != ReadyAuto {
		touch := *v
		go Guard(touch.awaitTouch, v.apps.Notice("cannot see whether the app uses its sockets"))()
	}
	watch := *v
	go Guard(watch.watchObstacles, v.apps.Notice("cannot see what keeps the app from serving"))()
	if v.served() {
		v.apps.startTook.Store(int64(time.Since(v.begun)))
		v.apps.confirm(v.app)
		v.awaitSaved()
		v.apps.Post(machine.Readied{Instance: v.instance})
		v.apps.examineStopSignal(v.app)
	}
}

// awaitSaved: who adopts the app has to know the process of the instance, and the sockets that it has made itself.
func (v *readinessCheck) awaitSaved() {
	if v.app.saved == nil {
		v.apps.awaitSaved()
		return
	}
	<-v.app.saved
	if v.apps.Steering != nil && len(v.apps.Steering.Sockets(v.app.member().Generation)) > 0 {
		v.apps.awaitNoted()
	}
}

// giveUp leaves the instance to its time to get ready.
func (v *readinessCheck) giveUp(why string) {
	v.apps.Post(machine.Noticed{Text: "cannot see whether the app is ready", Why: why})
	v.apps.Post(machine.Unreadied{Instance: v.instance, Why: why})
}

// served returns true when the instance serves, and false when nobody waits for
// that any more.
func (v *readinessCheck) served() bool {
	r := v.apps.Options.Readiness
	switch {
	case v.app.plan.TellsReady() && r.heeds():
		return v.saidByPipe()
	case r.Mode == ReadyAuto && (len(v.apps.Listeners) > 0 || v.apps.Steering != nil):
		return v.seen() && (!v.app.start.MustNotify || v.saidSo())
	case r.Mode == ReadyNotify || r.Mode == ReadyAuto && v.app.start.MustNotify:
		return v.saidSo()
	case r.Mode == ReadyAuto:
		return v.lived(v.app.reader.ready)
	case r.Mode == ReadyDelay:
		return v.lived(nil)
	}
	return v.probed()
}

func (v *readinessCheck) say(why string) {
	if why != v.told {
		v.told = why
		v.apps.Post(machine.Unreadied{Instance: v.instance, Why: why})
	}
}

// saidByPipe waits for the word of an app on tableflip.
func (v *readinessCheck) saidByPipe() bool {
	v.say("the app has not called tableflip's Ready")
	return v.app.plan.AwaitReady() == nil
}

// saidSo waits for the app's own word.
func (v *readinessCheck) saidSo() bool {
	v.say("the app has not sent READY=1 to NOTIFY_SOCKET")
	select {
	case <-v.app.reader.ready:
		return true
	case <-v.ctx.Done():
		return false
	}
}

func (v *readinessCheck) hasSaidSo() bool {
	select {
	case <-v.app.reader.ready:
		return true
	default:
		return false
	}
}

// seen looks from outside until the instance waits on every socket. The app's own
// word alone is not enough where one can look: gunicorn says READY=1 before a
// worker has loaded the app, and an app that binds by itself would leave its
// clients in a queue that nobody serves.
func (v *readinessCheck) seen() bool {
	return v.look(func(unseen []string, err error) bool {
		switch {
		case errors.Is(err, childproc.ErrCannotLook):
			return v.fallsBack(err)
		case err != nil:
			v.say(err.Error())
		case len(unseen) == 0 && len(v.sockets()) == 0:
			return v.livesWithoutSockets()
		case len(unseen) > 0:
			v.forgetClosed()
			v.say("no process of the app waits for connections on " + listing(unseen) + v.elsewhere())
		}
		return err == nil && len(unseen) == 0
	})
}

// fallsBack takes an instance that cannot be looked at by its word, or for ready
// after the delay: another look may see more.
func (v *readinessCheck) fallsBack(err error) bool {
	v.say(err.Error())
	if v.hasSaidSo() {
		return true
	}
	if v.app.start.MustNotify || time.Since(v.begun) < v.apps.Options.Readiness.Delay {
		return false
	}
	v.apps.Post(machine.FellBack{Instance: v.instance, Why: err.Error()})
	return true
}

// awaitTouch learns whether the app has anything to do with its sockets, for the
// sake of a better message when it fails.
func (v *readinessCheck) awaitTouch() {
	all := len(v.apps.Listeners)
	if v.app.start.Generation != 1 || all == 0 {
		return
	}
	v.look(func(unseen []string, err error) bool {
		if err != nil || len(unseen) >= all {
			return false
		}
		v.apps.Post(machine.Touched{Instance: v.instance})
		return true
	})
}

// look calls enough with the names of the sockets that nobody was seen to wait
// on, or with why that cannot be told now, until it is satisfied, and returns
// false if it never was.
func (v *readinessCheck) look(enough func(unseen []string, err error) bool) bool {
	sockets, promised := v.sockets(), v.promised()
	var detector *childproc.WaitDetector
	for v.nap(len(sockets)+len(promised)) == nil {
		now, left := v.sockets(), v.promised()
		if detector == nil || !slices.Equal(now, sockets) || !slices.Equal(left, promised) {
			sockets, promised, detector = now, left, childproc.NewWaitDetector(append(inodes(now), left...))
		}
		seen, err := v.lookOnce(detector, len(sockets)+len(promised))
		if v.accepts(promised, seen) {
			continue // which makes it one of the sockets
		}
		if enough(append(v.unopened(sockets), unseen(sockets, seen)...), err) {
			return true
		}
	}
	return false
}

func (v *readinessCheck) lookOnce(detector *childproc.WaitDetector, sockets int) ([]bool, error) {
	if sockets == 0 {
		return nil, nil
	}
	v.apps.Looks.enter()
	defer v.apps.Looks.Release()
	pids, err := v.processes()
	if errors.Is(err, os.ErrNotExist) {
		return make([]bool, sockets), nil // it ends; the machine is told
	}
	if err != nil {
		return nil, err
	}
	seen, err := detector.Look(pids)
	if slices.Contains(seen, true) && !childproc.Living(v.pid()) {
		return make([]bool, sockets), nil // a daemon that it has left behind is nobody's
	}
	return seen, err
}

// wholeLook is the look, of so many, that goes through all processes of an instance while looks come fast: which those are takes more
// to learn than whether one of them waits, and what is ready so soon is mostly one.
const wholeLook = 3

func (v *readinessCheck) processes() ([]int, error) {
	v.looks++
	if v.looks%wholeLook != 0 && time.Since(v.moved) < nappingFor {
		return []int{v.pid()}, nil
	}
	return v.apps.Reaper.Tree(v.pid())
}

// lookPause is for each socket of a look, which takes 5 to 10 µs for one: the app that
// still opens its thousand sockets needs the CPU, and grace to answer it.
const lookPause = 50 * time.Microsecond

// nappingFor is how long after the start, or a call of listen, looks come more often than once in a millisecond. A quick app is ready by then.
const nappingFor = 20 * time.Millisecond

// nap is the pause before a look. A long one ends soon after the app has listened, or said that it is ready.
func (v *readinessCheck) nap(sockets int) error {
	elapsed, listened := time.Since(v.moved), v.app.listened
	d := pauseAfter(elapsed, sockets)
	switch {
	case v.isToSpeak():
		d, listened = max(d, nappingFor), nil
	case sockets == 0:
		d = max(d, nappingFor)
	case v.moved == v.begun:
		d = max(d, early(elapsed, time.Duration(v.apps.startTook.Load())))
	}
	if d >= time.Millisecond {
		select {
		case <-time.After(d):
			return v.ctx.Err()
		case <-v.ctx.Done():
			return v.ctx.Err()
		case <-listened:
			v.moved, d = time.Now(), pauseAfter(0, sockets)
		case <-v.word:
			v.moved, v.word, d = time.Now(), nil, 0
		}
	}
	nap.For(d)
	return v.ctx.Err()
}

const longestPause = 25 * time.Millisecond

// pauseAfter makes a look late by one percent of the start at most, unless it looks for
// many sockets: of an app that has its sockets there is no event to wait for, and looking costs.
func pauseAfter(elapsed time.Duration, sockets int) time.Duration {
	share := min(max(elapsed/100, 500*time.Microsecond), longestPause)
	return max(share, time.Duration(sockets)*lookPause)
}

// isToSpeak: before the app's own word no look makes it ready.
func (v *readinessCheck) isToSpeak() bool {
	return v.apps.Options.Readiness.Mode == ReadyAuto && v.app.start.MustNotify && v.word != nil
}

// quickStart is what few apps start sooner than.
const quickStart = 2 * time.Millisecond

// early is the pause while the last start that was looked at was far from its end.
func early(elapsed, last time.Duration) time.Duration {
	return min(max(last*3/4, quickStart)-elapsed, max(last/16, 4*time.Millisecond), longestPause)
}

// lived waits for the delay, which the app's word cuts short; a nil word never
// comes.
func (v *readinessCheck) lived(word <-chan struct{}) bool {
	d := v.apps.Options.Readiness.Delay
	v.say(fmt.Sprintf("the app has not run for %s (--ready-delay)", d))
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-word:
		return true
	case <-v.ctx.Done():
		return false
	}
}
