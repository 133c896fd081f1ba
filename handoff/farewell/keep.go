package farewell

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Keeping is how the connections that were silent are kept when their app has closed them.
type Keeping struct {
	// Dial connects to the generation that serves now, whichever that is. It may be called by many goroutines.
	Dial func(ctx context.Context, at netip.AddrPort) (net.Conn, error)
	// Parting ends the wait for requests when it is over: who has not brought one by then finds the connection closed. Those that
	// have come are answered. nil: it never is.
	Parting context.Context
	// Patient is as long as Keep may wait for connections that are neither held nor kept, only to tell how they end. nil: always.
	Patient context.Context
	// For is how long a connection is kept without a word from its client: 0 closes it at once, as the app has.
	For time.Duration
	// Relays is how many requests are passed on at a time; the others wait in the kernel. 256 if it is 0. Each takes two
	// descriptors and up to 64 KB.
	Relays int
	// Idle is how long a relayed request may stand still in both directions; a minute if it is 0.
	Idle time.Duration
	// Failed is told why a request that a kept connection brought was not answered; nil: nobody is. It may be called by
	// many goroutines.
	Failed func(error)
}

// Result is what has become of a generation's connections.
type Result struct {
	// Left were closed by their clients, before the app ended or while they were kept.
	Left int
	// Kept stayed open when the app had closed them.
	Kept int
	// Relayed of the kept brought a request, which was passed on and answered.
	Relayed int
	// Expired of the kept were closed without having brought anything.
	Expired int
	// Cut were closed by the app and not kept, or kept and their request failed: only these can have lost anything.
	Cut int
}

// Keep takes over the held connections as the app closes them, each within about 10 ms, until the app has closed all of
// its connections; and it relays the one request that each may bring. What the app has not closed within a second of
// Hold, or six if it has brought no request yet, gets its input again, and is kept only if the app does not
// use it. It returns when the last is closed. When stopping is over, such as after the processes were killed, it waits for no further connections of theirs, and lets go what is
// held; when ctx is over, it closes all at once. It ends the Farewell.
//
// The app that a request is relayed to sees a connection from this machine.
func (f *Farewell) Keep(ctx, stopping context.Context, how Keeping) (Result, error) {
	stopping, cancel := context.WithCancel(stopping)
	defer cancel()
	defer context.AfterFunc(ctx, cancel)()
	k := newKeeper(ctx, f, how)
	err := f.takeOver(stopping, k)
	k.relays.Wait()
	return f.Result(), errors.Join(err, f.Release())
}

// Result is what has become of the connections until now.
func (f *Farewell) Result() Result {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.result
}

// countAgain is for who watches: counting thousands takes longer than looking.
const countAgain = 200 * time.Millisecond

// takeOverLooks is how soon who has sent a request on a connection that the app has closed gets an answer.
const takeOverLooks = 5 * time.Millisecond

// awaitShut waits until the app has closed a listener that is paused, which takes most servers less than the time between two
// looks: who connects meanwhile waits.
func (f *Farewell) awaitShut(ctx context.Context, atMost time.Duration) {
	s := settling(settleFirst)
	for begin := time.Now(); ctx.Err() == nil && time.Since(begin) < atMost; {
		s.pause()
		if f.someShut() {
			return
		}
	}
}

func (f *Farewell) somePaused() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.paused) > 0
}

// someShut asks for the descriptor in one process only. Whether another has the listener too, a look tells.
func (f *Farewell) someShut() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.ContainsFunc(f.paused, func(p *pause) bool {
		at, ok := f.seen[p.inode]
		if !ok {
			return false
		}
		fd, err := f.processes.duplicate(p.inode, at)
		if err == nil {
			unix.Close(fd)
		}
		return errors.Is(err, unix.ESTALE) || err == unix.EBADF || err == unix.ESRCH
	})
}

// takeOver looks every few milliseconds, and less often where a look takes long, or nobody waits for it.
func (f *Farewell) takeOver(stopping context.Context, k *keeper) error {
	now := time.Now()
	f.pace = pace{begun: now, moved: now}
	defer f.recount()
	f.rest(stopping, 0)
	for pause := takeOverLooks; ; {
		begin := time.Now()
		left, err := f.takeClosed(k, stopping.Err() != nil)
		if err != nil || left == 0 || k.Patient.Err() != nil && !f.holds() {
			return err
		}
		pause = rarer(pause)
		if f.urgent() {
			pause = takeOverLooks
		}
		f.rest(stopping, max(pause, 2*time.Since(begin)))
	}
}

func (f *Farewell) rest(ctx context.Context, d time.Duration) {
	if f.somePaused() {
		f.awaitShut(ctx, max(d, takeOverLooks))
		return
	}
	sleep(ctx, d)
}

// urgent reports whether a connection is held, or a listener paused. All others have only to be counted when they end.
func (f *Farewell) urgent() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.known {
		if c.held != nil {
			return true
		}
	}
	return len(f.paused) > 0
}

// holds reports whether the input of a connection is held back, or the app has closed one that is to be kept.
func (f *Farewell) holds() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.known {
		if c.held != nil && (!c.held.over || !c.open) {
			return true
		}
	}
	return false
}

// takeClosed takes over what was closed in two looks: one can miss a process that is just being born, with the connection that
// its parent had. It returns how many connections and listeners the app has left; the last time it waits for none of these.
func (f *Farewell) takeClosed(k *keeper, last bool) (left int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return 0, ErrEnded
	}
	f.stopped = true
	if err := f.look(); err != nil {
		return 0, err
	}
	sockets := f.seen
	if last {
		sockets = nil
	}
	f.endPauses(sockets)
	f.keepAll(k, f.gone(last))
	f.letInput(f.pace.stands(time.Now(), f.stillHeld()))
	if time.Since(f.looked) > countAgain {
		f.count()
	}
	return len(f.known) + len(f.paused), nil
}

// gone takes out of the known connections those that the app has left. The last time it lets go what the app still has.
func (f *Farewell) gone(last bool) (gone []*connection) {
	for inode, c := range f.known {
		switch {
		case c.held == nil && !last:
		case c.held == nil, c.open && last && !c.held.shut():
			f.letGo(c)
			f.leave(inode, c)
		case c.held.shut(), !c.open && (c.held.missed || last):
			gone = append(gone, c)
			delete(f.known, inode)
		default:
			c.held.missed = !c.open
		}
	}
	return gone
}

func (f *Farewell) keepAll(k *keeper, gone []*connection) {
	keep := make([]bool, len(gone))
	for i, c := range gone {
		c.answered = justAnswered(c.held.fd)
		keep[i] = f.recover(c) && k.For > 0
	}
	f.letThrough(gone)
	for i, c := range gone {
		f.part(k, c, keep[i])
	}
}

// recover tells whether a connection that the app has left can be kept.
func (f *Farewell) recover(c *connection) bool {
	if !c.held.shut() {
		c.held.openWindow(repairOffQuietly)
		return f.untouched(c)
	}
	r, ok := f.announcer.look(c.cookie)
	return ok && r.Sent == 0 && c.held.move(c.consumed) && f.announceMoved(c)
}

// announceMoved has the last answer say that the connection closes, which the successor may not.
func (f *Farewell) announceMoved(c *connection) bool {
	cookie, err := cookieOf(c.held.fd)
	if err != nil {
		return false
	}
	f.announcer.forget(c.cookie)
	c.cookie = cookie
	return f.announcer.put(c.held.fd, cookie) == nil
}

// letThrough comes before thousands are handed on one by one, which takes longer than a client's TCP waits before it sends
// again, and then twice as long: what comes waits in the kernel meanwhile. The app has closed these.
func (f *Farewell) letThrough(gone []*connection) {
	var cookies []uint64
	for _, c := range gone {
		if !c.held.over {
			cookies = append(cookies, c.cookie)
		}
	}
	if len(cookies) == 0 {
		return
	}
	if _, err := f.announcer.held.BatchDelete(cookies, nil); err != nil {
		for _, cookie := range cookies {
			_ = f.announcer.held.Delete(cookie)
		}
	}
}

// pace is how far an app that was told to stop has come with closing its held connections.
type pace struct {
	begun, moved time.Time
	left         int // when it moved
}

// stands is how long it has closed no more than clients do that leave by themselves, or else has taken longer than
// anybody may.
func (c *pace) stands(now time.Time, left int) time.Duration {
	if left < c.left-c.left/16 || left > c.left {
		c.moved, c.left = now, left
	}
	if all := now.Sub(c.begun); all > holdLongest {
		return all
	}
	return now.Sub(c.moved)
}

func (f *Farewell) stillHeld() (n int) {
	for _, c := range f.known {
		if c.held != nil && c.open {
			n++
		}
	}
	return n
}

// letInput lets an app that takes its time have the input of its connections again; those that it does not use are still kept.
func (f *Farewell) letInput(held time.Duration) {
	for _, c := range f.known {
		atMost := holdAtMost
		if c.consumed == 0 {
			atMost = holdNewAtMost
		}
		if c.held != nil && !c.held.over && held > atMost {
			c.held.over = true
			_ = f.announcer.held.Delete(c.cookie) // its window is opened by what its client sends
		}
	}
}

// part keeps a connection that the app has closed. One that it has used since it was held is closed, as it wanted: there
// may be half of a request in what it has read.
func (f *Farewell) part(k *keeper, c *connection, keep bool) {
	if !keep {
		f.ended(c)
		f.announcer.forget(c.cookie)
		unix.Close(c.held.fd)
		f.announcer.descriptors.put()
		return
	}
	f.result.Kept++
	f.kept++
	k.serve(c)
}

// ended counts a connection that is not kept.
func (f *Farewell) ended(c *connection) {
	r, _ := f.announcer.look(c.cookie)
	if !f.stopped || r.Said > 0 {
		f.result.Left++
		return
	}
	f.result.Cut++
}
