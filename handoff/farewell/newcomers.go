package farewell

import (
	"errors"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/gracerun/grace/internal/nap"
	"golang.org/x/sys/unix"
)

// pause keeps new connections from a listener that the generation shares with its successor. Its end is fixed when it begins, and comes
// without this process, too: the kernel has the time, and closes what it has open.
type pause struct {
	fd     int
	inode  uint64
	cookie uint64
	end    time.Time
	drops  bool // what ends a handshake at the listener: it is HTTP/1 that is spoken
}

const (
	// pauseAtMost is for a server that takes its time to close the listener. The kernel of a client sends again what was dropped
	// after 200 ms, and after another 400 ms.
	pauseAtMost = 500 * time.Millisecond
	// emptyWithin is how long the generations may take to accept what waits in the queue.
	emptyWithin = 150 * time.Millisecond
	// freshFor is how long a client has that has just connected to send its request: nearly all send it at once. Go's Shutdown
	// drops it when it comes after the stop signal (net/http's conn.serve).
	freshFor = 250 * time.Millisecond
)

// pauseListeners comes before the stop signal. A server may lose a connection that it accepts in that moment.
func (f *Farewell) pauseListeners(atMost time.Duration) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return ErrEnded
	}
	var errs []error
	for _, fd := range f.shared {
		p, err := f.announcer.pause(fd, f.places, atMost)
		if p != nil {
			f.paused = append(f.paused, p)
		}
		errs = append(errs, err)
	}
	return errors.Join(append(errs, f.dropHandshakes())...)
}

// dropHandshakes comes when those of clients nearby that had begun before the pause have ended. Where new connections wait, no others do.
func (f *Farewell) dropHandshakes() error {
	if len(f.paused) > 0 && f.announcer.unparked == nil {
		nap.For(settleFirst)
	}
	var errs []error
	for _, p := range f.paused {
		errs = append(errs, f.announcer.drop(p))
	}
	return errors.Join(errs...)
}

func (a *Announcer) drop(p *pause) error {
	if !p.drops {
		return nil
	}
	return unix.SetsockoptInt(p.fd, unix.SOL_SOCKET, unix.SO_ATTACH_BPF, a.newcomers.FD())
}

// pause gives nil for a listener that is let alone: where new connections cannot be parked, and nobody was seen to speak HTTP/1, the server
// may speak first, and a client that waits for it sends nothing again; a filter of the app's own stays.
func (a *Announcer) pause(fd int, places places, atMost time.Duration) (*pause, error) {
	at, ok := places.of(fd)
	if !ok || filtered(fd) {
		return nil, nil
	}
	cookie, err := cookieOf(fd)
	if err != nil {
		return nil, err
	}
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return nil, err
	}
	p := &pause{fd: fd, inode: stat.Ino, cookie: cookie, end: time.Now().Add(atMost), drops: a.spoken.has(at)}
	paused, err := a.pauses.begin(a, p, atMost)
	if !paused {
		return nil, err
	}
	return p, err
}

// pauses counts who needs a listener paused: several generations that share it may end within the same second.
type pauses struct {
	mu        sync.Mutex
	listeners map[uint64]*pausedListener // by cookie
}

type pausedListener struct {
	needs  int
	parked *parking    // nil where the kernel cannot do it
	lapse  *time.Timer // ends it, whoever needs it still
}

// begin has new connections wait. Where they cannot, they are dropped.
func (n *pauses) begin(a *Announcer, p *pause, atMost time.Duration) (paused bool, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := n.listeners[p.cookie]
	if l == nil {
		l = n.park(a, p, atMost)
	}
	if l.parked == nil && !p.drops {
		l.lapse.Stop()
		return false, nil
	}
	if n.listeners == nil {
		n.listeners = make(map[uint64]*pausedListener)
	}
	n.listeners[p.cookie] = l
	l.needs++
	l.lapse.Reset(atMost)
	if err := a.lead(p.cookie, l.parked, monotonic()+uint64(atMost)); err != nil || l.parked != nil {
		return true, err
	}
	return true, a.drop(p)
}

func (n *pauses) park(a *Announcer, p *pause, atMost time.Duration) *pausedListener {
	l := &pausedListener{}
	l.parked, _ = a.park(p.fd, p.cookie) // what comes is dropped where it cannot wait
	l.lapse = time.AfterFunc(atMost, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		l.letIn(a, p)
	})
	return l
}

// letIn undoes what cannot fail while the listener is open.
func (l *pausedListener) letIn(a *Announcer, p *pause) {
	l.lapse.Stop()
	_ = unix.SetsockoptInt(p.fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0)
	if l.parked == nil {
		_ = a.paused.Delete(p.cookie)
		return
	}
	_ = a.unpark(l.parked)
	l.parked = nil
}

// end lets new connections in with the last who needs the pause.
func (n *pauses) end(a *Announcer, p *pause) {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := n.listeners[p.cookie]
	if l.needs--; l.needs > 0 {
		return
	}
	delete(n.listeners, p.cookie)
	l.letIn(a, p)
}

// awaitAccepted waits until nothing is in the queues of the listeners that are paused. Its first look is late enough for a
// segment that another processor works on since before the last was dropped.
func (f *Farewell) awaitAccepted(atMost time.Duration) {
	f.mu.Lock()
	paused := f.paused
	f.mu.Unlock()
	s := settling(segmentTime)
	for begin := time.Now(); len(paused) > 0 && time.Since(begin) < atMost; {
		s.pause()
		for len(paused) > 0 && queued(paused[0].fd) == 0 {
			paused = paused[1:]
		}
	}
}

// awaitFirst waits until the clients that have just connected have sent their request, or may not be about to.
func (f *Farewell) awaitFirst() {
	for s := settling(settleFirst); f.someFresh(); {
		s.pause()
	}
}

func (f *Farewell) someFresh() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for inode, c := range f.known {
		if f.fresh(c) && f.connected(inode) {
			return true
		}
	}
	return false
}

// connected tells whether neither the app nor the client has closed a connection since the last look.
func (f *Farewell) connected(inode uint64) bool {
	fd, err := f.processes.duplicate(inode, f.seen[inode])
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	return err == nil && info.State == unix.BPF_TCP_ESTABLISHED
}

// fresh tells whether a client is about to send its first request.
func (f *Farewell) fresh(c *connection) bool {
	if !time.Now().Before(c.fresh) {
		return false
	}
	r, ok := f.announcer.look(c.cookie)
	return ok && r.Arrived == 0
}

// queued is the length of a listener's accept queue (tcp_get_info in net/ipv4/tcp.c).
func queued(fd int) int {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return 0
	}
	return int(info.Unacked)
}

// endPauses lets new connections in where the generation has closed the listener, or the time is over.
func (f *Farewell) endPauses(sockets map[uint64]place) {
	var paused []*pause
	for _, p := range f.paused {
		if _, open := sockets[p.inode]; open && time.Now().Before(p.end) {
			paused = append(paused, p)
			continue
		}
		f.announcer.pauses.end(f.announcer, p)
	}
	f.paused = paused
}

const (
	headerFlags = 13 // where the TCP header has them
	flagFIN     = 0x01
	flagSYN     = 0x02
	flagRST     = 0x04
)

// newcomers is the filter of a listener. While it is paused, a SYN is answered, and what would end the handshake is dropped: a
// client has sent its request with it or behind it, and sends that again after 200 ms; a SYN it would send again after a
// second.
func newcomers(paused *ebpf.Map) asm.Instructions {
	var a assembler
	a.block("begin",
		asm.Mov.Reg(rContext, asm.R1),
		asm.LoadAbs(headerFlags, asm.Byte),
		asm.And.Imm(asm.R0, flagSYN|flagRST),
		asm.JNE.Imm(asm.R0, 0, "keep"),
		asm.Mov.Reg(asm.R1, rContext),
		asm.FnGetSocketCookie.Call(), // the listener's, and that of a connection which has inherited the filter
		asm.StoreMem(asm.R10, stackName, asm.R0, asm.DWord),
		lookUp(paused, stackName, "keep"),
		asm.LoadMem(rLength, asm.R0, 0, asm.DWord),
		asm.FnKtimeGetNs.Call(),
		asm.JGE.Reg(asm.R0, rLength, "keep"),
		asm.Mov.Imm(asm.R0, 0),
		asm.Return(),
	)
	a.block("keep", asm.Mov.Imm(asm.R0, -1), asm.Return())
	return a.program
}
