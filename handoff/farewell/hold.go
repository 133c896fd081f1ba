package farewell

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"github.com/gracerun/grace/internal/nap"
	"golang.org/x/sys/unix"
)

// hold is a connection whose input is held back. Its descriptor keeps the connection open when the app closes its own.
type hold struct {
	fd   int
	over bool // the input comes through again
	// missed: the last look has found it in no process.
	missed bool
	window *uint32 // what the client has room for, while the app is kept from sending its end
}

// holdAtMost is how long clients wait for an app that has been told to stop and does not close its connections. One that
// waits for their last requests gets them; most of those wait for two seconds or longer, and shut the connection down then.
const (
	holdAtMost = time.Second
	// holdNewAtMost is for a connection that has brought no request yet. Go's Shutdown closes it 5 s after it was accepted, and
	// drops what comes until then.
	holdNewAtMost = 6 * time.Second
	// holdLongest is for one that is closing them: with thousands that takes a busy machine seconds, and who got input now
	// would close it unread.
	holdLongest = 10 * time.Second
)

// Hold waits until the requests that are open are answered, for patience at most: a server that is late resets at its end
// those that it has not read yet. Then it holds back the input of the connections that are silent and come in where HTTP/1
// is spoken, and new connections to listeners that are shared, and counts. Then it waits for answers once more, but not for
// long: an app may drop a request that it has just read when it is told to stop (golang/go#75591). Where the app has not even
// read all requests by then, it lets go what is held and begins anew, as long as patience lasts.
//
// It is to be called just before the stop signal is sent, and Keep as soon as it was: who asks meanwhile has to send again, after
// 200 ms, and who connects has to wait. It takes some 20 µs for each silent connection, and keeps a descriptor for each; connections for
// which there is none are not held. If this process dies, the app gets its input back within two seconds.
func (f *Farewell) Hold(patience time.Duration) (Counts, error) {
	if _, err := f.Look(); err != nil {
		return Counts{}, err
	}
	f.announcer.descriptors.free(f.toHold())
	for end := time.Now().Add(patience); ; f.letAllGo() {
		if err := f.awaitRead(end); err != nil {
			return Counts{}, err
		}
		open, err := f.holdAll()
		if err != nil {
			return Counts{}, fmt.Errorf("cannot hold connections: %w", err)
		}
		if time.Now().After(end) || !f.someUnread(open) {
			break
		}
	}
	f.silence()
	return f.recount(), nil
}

// awaitRead waits for answers as long as some come, or until the app has read what they answer. Then it looks again.
func (f *Farewell) awaitRead(end time.Time) error {
	if len(f.open()) == 0 {
		return nil
	}
	for {
		open := f.awaitAnswers(time.Until(end), standstill)
		if time.Now().After(end) || !f.someUnread(open) {
			_, err := f.Look()
			return err
		}
	}
}

// someUnread tells whether the app has not read the request of one of these connections: a server resets it at its end.
func (f *Farewell) someUnread(open []*connection) bool {
	if len(open) == 0 {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	sockets, err := f.processes.sockets()
	if err != nil {
		return false
	}
	waits := make(map[*connection]bool, len(open))
	for _, c := range open {
		waits[c] = true
	}
	for inode, c := range f.known {
		if waits[c] && f.unread(inode, sockets[inode]) {
			return true
		}
	}
	return false
}

// unread is not so for what has been closed meanwhile.
func (f *Farewell) unread(inode uint64, at place) bool {
	fd, err := f.processes.duplicate(inode, at)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	n, err := unreadOf(fd)
	return err == nil && n > 0
}

// letAllGo gives the app back all that is held, and new connections.
func (f *Farewell) letAllGo() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.known {
		f.letGo(c)
	}
	f.endPauses(nil)
}

// holdAll holds new connections after the silent ones, which may be many: it has little time. Who came in between is
// given time to ask, and held if he does not. Open are the connections whose requests are not answered in that time.
func (f *Farewell) holdAll() (open []*connection, err error) {
	if err := f.holdSilent(); err != nil {
		return nil, err
	}
	if len(f.shared) == 0 {
		return f.awaitAnswers(settleWithin, settleWithin), nil
	}
	if err := f.pauseListeners(pauseAtMost); err != nil {
		return nil, err
	}
	f.awaitAccepted(emptyWithin)
	if _, err := f.Look(); err != nil {
		return nil, err
	}
	if open, err = f.settle(); err != nil {
		return nil, err
	}
	if err := f.holdSilent(); err != nil {
		return nil, err
	}
	return append(open, f.awaitLate(open)...), nil
}

// awaitLate waits for answers on connections whose requests came after those known were looked for, and before they were held. Nothing
// further can begin then.
func (f *Farewell) awaitLate(known []*connection) (open []*connection) {
	late := slices.DeleteFunc(f.open(), func(c *connection) bool { return slices.Contains(known, c) })
	return f.awaitAnswersOn(late, settleWithin, settleWithin)
}

// settle waits for those who have just come in, and for answers. Then it looks again.
func (f *Farewell) settle() (open []*connection, err error) {
	if !f.someFresh() && len(f.open()) == 0 {
		return nil, nil
	}
	f.awaitFirst()
	open = f.awaitAnswers(settleWithin, settleWithin)
	_, err = f.Look()
	return open, err
}

// holdSilent comes right after a look.
func (f *Farewell) holdSilent() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return ErrEnded
	}
	if err := f.beginHold(); err != nil {
		return err
	}
	if err := f.hold(f.duplicates(f.seen)); err != nil {
		return err
	}
	f.letTouchedGo()
	return nil
}

const (
	settleWithin = 100 * time.Millisecond // so that who is held waits for one retransmission and no second
	settleFirst  = 200 * time.Microsecond // until the first look; most has settled by then
	settleLooks  = 5 * time.Millisecond
	// standstill is longer than most answers take. Long polls are not waited for, which any server reads at once.
	standstill = 250 * time.Millisecond
)

// settling is how long the next pause between two looks is.
type settling time.Duration

func (s *settling) pause() {
	nap.For(time.Duration(*s))
	*s = min(2**s, settling(settleLooks))
}

// awaitAnswers waits until all requests are answered that are open now, and not for those that are left when no answer has
// come for a time. It returns the connections of these.
func (f *Farewell) awaitAnswers(atMost, standstill time.Duration) (open []*connection) {
	return f.awaitAnswersOn(f.open(), atMost, standstill)
}

func (f *Farewell) awaitAnswersOn(open []*connection, atMost, standstill time.Duration) []*connection {
	begin, s := time.Now(), settling(settleFirst)
	moved := begin
	for len(open) > 0 && time.Since(begin) < atMost && time.Since(moved) < standstill {
		s.pause()
		if left := f.unanswered(open); len(left) < len(open) {
			open, moved = left, time.Now()
		}
	}
	return open
}

// open are the connections on which a request is not answered yet.
func (f *Farewell) open() []*connection {
	f.mu.Lock()
	defer f.mu.Unlock()
	var open []*connection
	for _, c := range f.known {
		if c.held == nil && c.told && f.works(c) {
			open = append(open, c)
		}
	}
	return open
}

func (f *Farewell) unanswered(open []*connection) []*connection {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.DeleteFunc(open, func(c *connection) bool { return !f.works(c) })
}

func (f *Farewell) works(c *connection) bool {
	r, ok := f.announcer.look(c.cookie)
	return ok && r.Tunnel == 0 && (r.Requests != r.Answered || c.asked && r.Sent == 0)
}

func (f *Farewell) beginHold() error {
	if f.holding {
		return nil
	}
	err := f.announcer.leases.begin()
	f.holding = err == nil
	return err
}

func (f *Farewell) endHold() {
	if f.holding {
		f.holding = false
		f.announcer.leases.release()
	}
}

// duplicates takes all descriptors before the first connection is held, since that takes the most time.
func (f *Farewell) duplicates(sockets map[uint64]place) []*connection {
	var silent []*connection
	for inode, c := range f.known {
		if !f.mayHold(c) {
			continue
		}
		at, ok := sockets[inode]
		if !ok || !f.announcer.descriptors.take() {
			continue
		}
		fd, err := f.processes.duplicate(inode, at)
		if err != nil {
			f.announcer.descriptors.put()
			continue
		}
		c.held = &hold{fd: fd}
		silent = append(silent, c)
	}
	return silent
}

// mayHold: a request on a connection in another network namespace cannot be passed on. At its address there may be another
// server in this namespace, or none.
func (f *Farewell) mayHold(c *connection) bool {
	if c.held != nil || !c.told || c.asked || c.elsewhere || f.touched(c) {
		return false
	}
	return f.announcer.spoken.has(c.at) && (len(f.shared) == 0 || !f.fresh(c))
}

// touched tells whether a connection was used since the announcement.
func (f *Farewell) touched(c *connection) bool {
	r, ok := f.announcer.look(c.cookie)
	return !ok || r.Sent > 0 || r.Arrived > 0
}

// toHold is how many connections Hold would hold now.
func (f *Farewell) toHold() (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.known {
		if f.mayHold(c) {
			n++
		}
	}
	return n
}

func (f *Farewell) hold(connections []*connection) error {
	if len(connections) == 0 {
		return nil
	}
	cookies := make([]uint64, len(connections))
	for i, c := range connections {
		cookies[i] = c.cookie
	}
	_, err := f.announcer.held.BatchUpdate(cookies, make([]uint32, len(cookies)), nil)
	if errors.Is(err, ebpf.ErrNotSupported) {
		for _, cookie := range cookies {
			err = f.announcer.held.Put(cookie, uint32(0))
		}
	}
	return err
}

// letTouchedGo looks at all of the held once more after the last was held: only then it is known who was used until then.
func (f *Farewell) letTouchedGo() {
	for _, c := range f.known {
		if c.held != nil && (f.arrived(c) || !f.untouched(c)) {
			f.letGo(c)
		}
	}
}

// untouched tells whether the app knows nothing of what comes on a held connection, and owes it nothing.
func (f *Farewell) untouched(c *connection) bool {
	now, err := trafficOf(c.held.fd)
	if err != nil || !now.open || now.consumed != c.consumed {
		return false
	}
	r, ok := f.announcer.look(c.cookie)
	return ok && r.Sent == 0
}

// arrived tells whether a request came before the connection was held, which the app may not have read yet.
func (f *Farewell) arrived(c *connection) bool {
	r, ok := f.announcer.look(c.cookie)
	return !ok || r.Arrived > 0
}

// letGo gives a held connection back to the app alone.
func (f *Farewell) letGo(c *connection) {
	if c.held == nil {
		return
	}
	_ = f.announcer.held.Delete(c.cookie)
	c.held.openWindow(repairOff)
	unix.Close(c.held.fd)
	f.announcer.descriptors.put()
	c.held = nil
}
