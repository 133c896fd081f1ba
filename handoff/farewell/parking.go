package farewell

import (
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/gracerun/grace/handoff/sibling"
	"github.com/gracerun/grace/internal/nap"
	"golang.org/x/sys/unix"
)

// parking is a socket at the address of a listener that is paused, in which new connections wait. Nobody accepts from it. When it
// is closed, the kernel moves them to the listener (inet_csk_listen_stop in net/ipv4/inet_connection_sock.c), as it does when this
// process has died, and handshakes that end later too.
type parking struct {
	fd       int
	cookie   uint64
	listener int    // a descriptor of the pause's
	beside   uint64 // its cookie
}

// park opens the socket, and has the kernel ask the program which of the two gets a new connection; it stays with the listener, by which the
// kernel moves connections, too. An error says why new connections cannot wait there.
func (a *Announcer) park(listener int, cookie uint64) (*parking, error) {
	if a.unparked != nil {
		return nil, a.unparked
	}
	if err := sibling.Alone(listener); err != nil {
		return nil, err
	}
	if !a.descriptors.take() {
		return nil, unix.EMFILE
	}
	p := &parking{fd: -1, listener: listener, beside: cookie}
	err := inTurn(
		func() error { return unix.SetsockoptInt(listener, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) },
		p.open,
		func() error { return a.parkings.Put(cookie, uint64(p.fd)) },
		func() error { return a.parkings.Put(p.cookie, uint64(p.fd)) },
		func() error {
			return unix.SetsockoptInt(p.fd, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_EBPF, a.selector.FD())
		},
	)
	if err != nil {
		return nil, errors.Join(err, a.unpark(p))
	}
	return p, nil
}

// lead says until when new connections are kept from the listener. The program is asked with either of the two sockets, whichever the kernel finds
// first.
func (a *Announcer) lead(listener uint64, to *parking, until uint64) error {
	err := a.paused.Put(listener, until)
	if err == nil && to != nil {
		err = a.paused.Put(to.cookie, until)
	}
	return err
}

func (p *parking) open() (err error) {
	if p.fd, err = sibling.Bind(p.listener); err == nil {
		err = sibling.Inherit(p.fd, p.listener)
	}
	if err == nil {
		err = unix.Listen(p.fd, sibling.Backlog(p.listener))
	}
	if err == nil {
		p.cookie, err = cookieOf(p.fd)
	}
	return err
}

// unpark has the listener get what waits and what comes, and nobody listen beside it any more.
func (a *Announcer) unpark(p *parking) error {
	defer a.descriptors.put()
	var err error
	if p.fd >= 0 {
		a.calm(p)
		err = unix.Close(p.fd)
	}
	for _, cookie := range []uint64{p.beside, p.cookie} { // which may not be there
		_ = a.paused.Delete(cookie)
		_ = a.parkings.Delete(cookie)
	}
	return errors.Join(err, sibling.Unshare(p.listener))
}

const (
	// forever is later than any time that a program compares it with.
	forever = 1<<64 - 1
	// segmentTime is longer than the kernel works on a segment.
	segmentTime = 100 * time.Microsecond
)

// calm has no handshake end at the parking while that is closed: the kernel resets the client if another processor is about to put the
// connection into the queue in that moment (inet_csk_reqsk_queue_add in net/ipv4/inet_connection_sock.c). New ones begin at the listener, those of
// clients nearby have time to end, and of what still comes the client sends again: then the kernel moves it. Where one of this cannot be had, the
// moment is left to chance.
func (a *Announcer) calm(p *parking) {
	err := inTurn(
		func() error { return a.parkings.Put(p.beside, uint64(p.listener)) },
		func() error { return a.parkings.Put(p.cookie, uint64(p.listener)) },
		func() error { return a.lead(p.beside, p, forever) },
	)
	if err == nil {
		nap.For(settleFirst)
	}
	if unix.SetsockoptInt(p.fd, unix.SOL_SOCKET, unix.SO_ATTACH_BPF, a.newcomers.FD()) == nil {
		nap.For(segmentTime)
	}
}

// prepareParking tells why new connections cannot be parked.
func (a *Announcer) prepareParking() (err error) {
	a.selector, err = ebpf.NewProgram(&ebpf.ProgramSpec{Name: "grace_selector", Type: ebpf.SkReuseport, AttachType: ebpf.AttachSkReuseportSelectOrMigrate,
		License: license, Instructions: selector(a.paused, a.parkings)})
	if err != nil {
		return fmt.Errorf("the kernel does not load the program that parks new connections: %w", explain(err))
	}
	return a.tryParking()
}

// tryParking sees whether a server is told of connections that were moved to its listener. Before a mend of inet_csk_listen_stop, which is
// in 6.18, it was not, and slept until the next one came.
func (a *Announcer) tryParking() error {
	listener, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return err
	}
	defer unix.Close(listener)
	if err := errors.Join(unix.Bind(listener, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(listener, 1)); err != nil {
		return err
	}
	set, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(set)
	if err := unix.EpollCtl(set, unix.EPOLL_CTL_ADD, listener, &unix.EpollEvent{Events: unix.EPOLLIN}); err != nil {
		return err
	}
	return a.moveOne(listener, set)
}

func (a *Announcer) moveOne(listener, set int) error {
	cookie, err := cookieOf(listener)
	if err != nil {
		return err
	}
	p, err := a.park(listener, cookie)
	if err != nil {
		return err
	}
	if err := a.lead(cookie, p, monotonic()+uint64(time.Minute)); err != nil {
		return errors.Join(err, a.unpark(p))
	}
	client, err := connect(listener, p.fd)
	if err != nil {
		return errors.Join(err, a.unpark(p))
	}
	defer unix.Close(client)
	if err := a.unpark(p); err != nil {
		return err
	}
	events := make([]unix.EpollEvent, 1)
	if n, err := unix.EpollWait(set, events, 0); err != nil || n == 0 {
		return errors.Join(err, errors.New("this kernel does not tell a server of connections that it has moved to its listener"))
	}
	return nil
}

// connect waits until a connection to the listener is in the queue of the other socket.
func connect(listener, queue int) (client int, err error) {
	name, err := unix.Getsockname(listener)
	if err != nil {
		return -1, err
	}
	client, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_TCP)
	if err != nil {
		return -1, err
	}
	if err := unix.Connect(client, name); err != nil && err != unix.EINPROGRESS {
		return -1, errors.Join(err, unix.Close(client))
	}
	s := settling(settleFirst)
	for begin := time.Now(); queued(queue) == 0; s.pause() {
		if time.Since(begin) > settleWithin {
			return -1, errors.Join(fmt.Errorf("a connection did not arrive within %v", settleWithin), unix.Close(client))
		}
	}
	return client, nil
}

// Where struct sk_reuseport_md has its pointers (include/uapi/linux/bpf.h).
const (
	reuseportSocket    = 40
	reuseportMigrating = 48
)

// selector selects the socket in which a new connection waits while its listener is paused. For one that is moved it selects none:
// then the kernel takes the listener, which is the only one left.
func selector(paused, parkings *ebpf.Map) asm.Instructions {
	var a assembler
	a.block("begin",
		asm.Mov.Reg(rContext, asm.R1),
		asm.LoadMem(asm.R0, rContext, reuseportMigrating, asm.DWord),
		asm.JNE.Imm(asm.R0, 0, "pass"),
		asm.LoadMem(asm.R1, rContext, reuseportSocket, asm.DWord),
		asm.FnGetSocketCookie.Call(),
		asm.StoreMem(asm.R10, stackName, asm.R0, asm.DWord),
		lookUp(paused, stackName, "pass"),
		asm.LoadMem(rLength, asm.R0, 0, asm.DWord),
		asm.FnKtimeGetNs.Call(),
		asm.JGE.Reg(asm.R0, rLength, "pass"),
		asm.Mov.Reg(asm.R1, rContext),
		asm.LoadMapPtr(asm.R2, parkings.FD()),
		asm.Mov.Reg(asm.R3, asm.R10),
		asm.Add.Imm(asm.R3, stackName),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnSkSelectReuseport.Call(),
	)
	a.block("pass", asm.Mov.Imm(asm.R0, 1), asm.Return())
	return a.program
}
