package farewell

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Generation is whose connections are to leave.
type Generation struct {
	// Pids returns the processes that may have accepted connections and run now. It is called from the methods of the
	// Farewell, in their goroutine. An error says that some may be missing: then nothing is taken for closed.
	Pids func() ([]int, error)
	// At are the addresses that its TCP listeners are bound to. Connections that came in elsewhere are let alone.
	At []netip.AddrPort
	// Shared are descriptors of listeners that its successor has, too. They stay the caller's, and open until the Farewell ends.
	Shared []int
}

// Counts is where a generation's connections are. Left and those that are open add up to all that were found, but for those
// that were kept and have ended.
type Counts struct {
	// Left have been closed since the announcement, nearly always by the client that was told.
	Left int
	// Busy are open and were used in the second before the announcement or since.
	Busy int
	// Working of the busy have a request that is not answered yet.
	Working int
	// Silent are open and were not.
	Silent int
	// Held of the silent have their input held back.
	Held int
	// Untold are open, too, and could not be announced: another program's map or kTLS has them, or they are MPTCP.
	Untold int
	// Kept are open though the app has closed them, and wait for a last request or work on it.
	Kept int
}

// Open is how many connections are open.
func (c Counts) Open() int { return c.Busy + c.Silent + c.Untold + c.Kept }

// Farewell is one generation's. Its methods may be called from any goroutine, and wait for each other, but for Counts.
type Farewell struct {
	announcer *Announcer

	mu        sync.Mutex
	processes processes
	places    places
	shared    []int
	paused    []*pause
	known     map[uint64]*connection // by inode
	others    map[uint64]bool        // sockets that are no connections of the generation's
	seen      map[uint64]place       // in the last look
	busy      uint64                 // the inode of one that was used, when they were counted last
	denied    error                  // why there may be more connections, which cannot be had
	result    Result
	kept      int  // open and closed by the app
	holding   bool // the lease
	pace      pace // once it was told to stop
	stopped   bool // the app is ending: what it closes is not for its clients' having left
	closed    bool

	counted atomic.Pointer[Counts] // when connections were looked at last
	looked  time.Time              // when that was
}

// Announce puts the generation's connections into the map: from then on an answer on them says that the connection closes.
// It takes about 20 µs for each connection. A connection that cannot be announced is counted and is no error; an error
// means that the processes could not be looked into. The caller ends the Farewell by Keep or Release.
func (a *Announcer) Announce(g Generation) (*Farewell, error) {
	f := &Farewell{
		announcer: a,
		processes: processes{pids: g.Pids},
		places:    g.At,
		shared:    g.Shared,
		known:     make(map[uint64]*connection),
		others:    make(map[uint64]bool),
	}
	if _, err := f.Look(); err != nil {
		return nil, errors.Join(err, f.Release())
	}
	return f, nil
}

// Look announces the connections that have come since, such as those that waited in the generation's queue, and counts.
// It takes about 2 µs for each descriptor that the processes have. While Keep looks, Look only counts.
func (f *Farewell) Look() (Counts, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return Counts{}, ErrEnded
	}
	if f.stopped {
		return f.count(), nil
	}
	if err := f.look(); err != nil {
		return Counts{}, err
	}
	return f.count(), nil
}

// Counts are those of the last look, of which Await, Hold and Keep make some each second. It costs nothing, waits for
// nothing, and keeps nobody waiting: whoever only wants to show them can ask as often as he likes.
func (f *Farewell) Counts() Counts { return *f.counted.Load() }

func (f *Farewell) recount() Counts {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.count()
}

// Denied is why connections could not be announced that the generation may have, or nil: the right to duplicate descriptors of one of
// its processes is missing. Those of other processes are announced.
func (f *Farewell) Denied() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.denied
}

// ErrEnded is what the methods of a farewell return after Keep or Release.
var ErrEnded = errors.New("cannot go on with a farewell that has ended")

// look sees what the processes have open.
func (f *Farewell) look() error {
	sockets, err := f.processes.sockets()
	if err != nil {
		return fmt.Errorf("cannot look for connections: %w", err)
	}
	f.seen = sockets
	for inode, c := range f.known {
		at, open := sockets[inode]
		switch c.open = open; {
		case !open && c.held == nil:
			f.leave(inode, c)
		case open && c.taken:
			f.meet(inode, at) // the kernel frees the map of a process that has ended some time after that
		}
	}
	for inode, at := range sockets {
		if f.known[inode] == nil && !f.others[inode] {
			f.meet(inode, at)
		}
	}
	f.trustOpenAnswers()
	return nil
}

// trustOpenAnswers lets answers to what was asked before the announcement be told where HTTP/1 is spoken: what was asked
// nobody has seen.
func (f *Farewell) trustOpenAnswers() {
	f.learnAll()
	for _, c := range f.known {
		if c.told && !c.trusted {
			f.trust(c)
		}
	}
}

func (f *Farewell) trust(c *connection) {
	if f.announcer.spoken.has(c.at) {
		c.trusted = f.announcer.http.Put(c.cookie, uint32(0)) == nil
	}
}

// leave notes what is closed.
func (f *Farewell) leave(inode uint64, c *connection) {
	f.learn(c)
	f.ended(c)
	f.announcer.forget(c.cookie)
	delete(f.known, inode)
}

// learn remembers where HTTP/1 is spoken.
func (f *Farewell) learn(c *connection) {
	if r, ok := f.announcer.look(c.cookie); ok && r.speaksHTTP() {
		f.announcer.spoken.add(c.at)
	}
}

func (f *Farewell) learnAll() {
	for _, c := range f.known {
		if !f.announcer.spoken.has(c.at) {
			f.learn(c)
		}
	}
}

// meet looks at a socket for the first time. One that cannot be had any more has been closed since it was seen.
func (f *Farewell) meet(inode uint64, at place) {
	fd, err := f.processes.duplicate(inode, at)
	if err == unix.EPERM {
		f.denied = denied(err)
	}
	if err != nil {
		return
	}
	defer unix.Close(fd)
	c, ok := f.examine(fd)
	if !ok {
		f.others[inode] = true
		return
	}
	if c != nil {
		f.known[inode] = c
	}
}

// examine announces a connection. It is nil where a connection of the generation's is closing already, and not ok where
// the socket is something else. Where it stands is asked after that: what comes and goes from then on the programs see.
func (f *Farewell) examine(fd int) (c *connection, ok bool) {
	at, ok := f.places.of(fd)
	if !ok {
		return nil, false
	}
	now, err := trafficOf(fd)
	if err != nil {
		return nil, false
	}
	cookie, err := cookieOf(fd)
	if err != nil || !now.open {
		return nil, err == nil
	}
	c = &connection{cookie: cookie, at: at, open: true}
	network, err := networkOf(fd)
	c.elsewhere = err != nil || network != f.announcer.network
	if !filtered(fd) {
		f.trust(c) // before its answer can come
		err := f.announcer.put(fd, cookie)
		c.told, c.taken = err == nil, errors.Is(err, unix.EBUSY)
	}
	if now, err = trafficOf(fd); err == nil {
		c.consumed, c.asked, c.used, c.fresh = now.consumed, now.asked, now.asked || now.recent, time.Now().Add(now.fresh)
	}
	return c, true
}

// count takes 1 µs for each connection that is not held.
func (f *Farewell) count() Counts {
	counts := Counts{Left: f.result.Left, Kept: f.kept}
	for inode, c := range f.known {
		switch {
		case !c.told:
			counts.Untold++
		case c.held != nil:
			counts.Silent++
			counts.Held++
		case f.used(c):
			counts.Busy++
			f.busy = inode
			if f.works(c) {
				counts.Working++
			}
		default:
			counts.Silent++
		}
	}
	f.counted.Store(&counts)
	f.looked = time.Now()
	return counts
}

// countKept is for many that end one by one.
func (f *Farewell) countKept() {
	counts := *f.counted.Load()
	counts.Left, counts.Kept = f.result.Left, f.kept
	f.counted.Store(&counts)
}

// used tells whether a connection is one whose client is about to ask again.
func (f *Farewell) used(c *connection) bool {
	if !c.used {
		c.used = f.touched(c)
	}
	return c.used
}

// A look costs a processor up to half a millisecond, and a fifth of its time when there are thousands of connections. As long as
// connections come that have to be announced, looks follow each other closely; otherwise they become rarer.
const (
	looks      = 25 * time.Millisecond
	looksApart = 200 * time.Millisecond
	looksRest  = time.Second // where none come, and one that is waited for is still there
)

func rarer(pause time.Duration) time.Duration { return min(2*pause, looksApart) }

// Await looks until no connection is busy any more, or ctx ends, and counts. It looks at once only if one was busy in the last
// look, such as that of Announce.
func (f *Farewell) Await(ctx context.Context) (Counts, error) {
	counts, pause, found := f.Counts(), looks, 0
	for counts.Busy > 0 {
		begin := time.Now()
		var err error
		if counts, err = f.Look(); err != nil || counts.Busy == 0 {
			return counts, err
		}
		pause = rarer(pause)
		if all := counts.Left + counts.Open(); all > found {
			pause, found = looks, all
		}
		if !f.awaitChange(ctx, begin, max(pause, 5*time.Since(begin))) {
			return counts, nil
		}
	}
	return counts, nil
}

// awaitChange waits until another look may find something new. It reports whether ctx has lasted.
func (f *Farewell) awaitChange(ctx context.Context, looked time.Time, pause time.Duration) bool {
	for sleep(ctx, pause) {
		if time.Since(looked) > looksRest || !f.stillBusy() {
			return true
		}
		pause = rarer(pause)
	}
	return false
}

// stillBusy tells at little cost that a connection is still open which was used, and that none comes that would have to be announced.
func (f *Farewell) stillBusy() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.shared) == 0 && f.connected(f.busy)
}

// sleep reports whether ctx has lasted.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// Release ends the Farewell, and lets the generation keep the connections that it still has: answers are as the app makes
// them, and what was held back comes through. It is for a generation that serves again; after Keep there is nothing to
// release. It may be called again.
func (f *Farewell) Release() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil
	}
	f.closed = true
	sockets, err := f.processes.sockets()
	for inode, c := range f.known {
		if c.told {
			f.takeOut(inode, sockets[inode], c)
		}
		f.letGo(c)
	}
	f.endPauses(nil)
	f.endHold()
	return errors.Join(err, f.processes.close())
}

// takeOut goes by the duplicate where there is one. Without either the connection is closed.
func (f *Farewell) takeOut(inode uint64, at place, c *connection) {
	if c.held != nil {
		f.announcer.remove(c.held.fd, c.cookie)
		return
	}
	fd, err := f.processes.duplicate(inode, at)
	if err != nil {
		f.announcer.forget(c.cookie)
		return
	}
	f.announcer.remove(fd, c.cookie)
	unix.Close(fd)
}
