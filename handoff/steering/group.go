package steering

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/gracerun/grace/handoff/sockdiag"
	"github.com/gracerun/grace/handoff/synfilter"
	"golang.org/x/sys/unix"
)

// group is a reuseport group of the kernel's: the sockets that listen at one address, at least one, and the program that
// chooses among them by their numbers. The kernel numbers them as they begin to listen, and when one leaves, the last moves into the
// hole (net/core/sock_reuseport.c). A successor of this process gets the exported fields.
type group struct {
	Key        groupKey             `json:"Site"`
	memberList                      // in the kernel's order
	stale      groupSet             // where it is itself while the kernel has another program than it should
	Begun      []sockdiag.Handshake `json:",omitempty"` // of those that had not been established when the generation was replaced, as far as they go on
	Counted    bool                 `json:",omitzero"`  // Begun was read
	was        choice               // what the program of a predecessor leads to that was killed
}

// newGroup is that of the first socket to listen at an address.
func newGroup(at groupKey, first *memberSocket, stale groupSet) *group {
	g := &group{Key: at, memberList: memberList{Members: []*memberSocket{first}, Selected: first.Generation}, stale: stale}
	g.touch()
	return g
}

func (g *group) String() string { return g.Key.At.String() }

func (g *group) socket(m InstanceKey, inode uint64) SteeredSocket {
	return SteeredSocket{InstanceKey: m, Bound: g.Key.At, Inode: inode}
}

// touch has the group get another program.
func (g *group) touch() { g.stale[g] = true }

// readied lets an instance have its part.
func (g *group) readied(m InstanceKey) {
	for _, s := range g.Members {
		if s.Unready && slices.Contains(s.listeners(), m) {
			s.Unready = false
			g.touch()
		}
	}
}

func (g *group) choose(to Split) {
	g.touch()
	if g.steer(to) {
		g.Begun, g.Counted = nil, false
	}
}

func (g *group) turnAway() error {
	g.away, g.Begun, g.Counted, g.Replaced = true, nil, false, time.Now()
	g.touch()
	return nil
}

// remove numbers the rest as the kernel does; it is not for the last one.
func (g *group) remove(number int) {
	last := len(g.Members) - 1
	g.Members[number] = g.Members[last]
	g.Members = g.Members[:last]
	g.touch()
}

// apply makes the kernel do as the group is now. When an app shuts its socket down, the numbers change before another
// program is there, and those of the old one can mean any socket. So each that is not to get a connection turns
// newcomers away: its app may be about to end, or has gone, or is not ready yet.
func (g *group) apply(probes map[uint16]InstanceKey) error {
	if g.away {
		for _, s := range g.Members {
			synfilter.Attach(s.FD)
		}
		return nil
	}
	to, targets := g.choice(), g.targets(probes)
	wanted := slices.Concat(append(slices.Collect(maps.Values(targets)), to.selected, to.beside)...)
	for _, number := range wanted {
		if err := synfilter.Detach(g.Members[number].FD); err != nil {
			return fmt.Errorf("cannot steer %s: %w", g.Key.At, err)
		}
	}
	if err := g.attach(to, targets); err != nil {
		return err
	}
	for number, s := range g.Members {
		if !slices.Contains(wanted, number) {
			synfilter.Attach(s.FD)
		}
	}
	return nil
}

// targets are the numbers of the sockets that probes are for, by port.
func (g *group) targets(probes map[uint16]InstanceKey) map[uint16][]int {
	targets := make(map[uint16][]int)
	for port, member := range probes {
		numbers := g.numbers(func(s *memberSocket) bool { return slices.Contains(s.listeners(), member) })
		if len(numbers) > 0 {
			targets[port] = numbers
		}
	}
	return targets
}

// attach tells the kernel the numbers. From then on the next SYN goes where the program says.
func (g *group) attach(to choice, targets map[uint16][]int) error {
	if g.away {
		return nil // none is led to, and the selected generation's may have been let go
	}
	by := slices.IndexFunc(g.Members, func(s *memberSocket) bool { return !s.Multipath })
	if by < 0 && len(g.Members) == 1 {
		return nil // it gets all, whatever program there is
	}
	return g.attachBy(g.Members[max(by, 0)].FD, to, targets)
}

// attachBy attaches by any socket of the group.
func (g *group) attachBy(fd int, to choice, targets map[uint16][]int) error {
	if err := attachSelector(fd, to, targets); err != nil {
		return fmt.Errorf("cannot steer %s: %w%s", g.Key.At, err, attachHint(err, len(to.selected)+len(to.beside)))
	}
	return nil
}

// attachSelector is for the group of the socket.
func attachSelector(fd int, to choice, targets map[uint16][]int) error {
	filter := selector(to, targets)
	program := unix.SockFprog{Len: uint16(min(len(filter), 1<<16-1)), Filter: &filter[0]}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF, &program)
}

func attachHint(err error, members int) string {
	switch {
	case errors.Is(err, unix.EOPNOTSUPP):
		return ": the socket's protocol cannot be steered, only plain TCP can; let the app listen without MPTCP"
	case errors.Is(err, unix.ENOMEM), errors.Is(err, unix.EINVAL) && members > 1:
		return fmt.Sprintf(": %d sockets share the address; use fewer, or raise net.core.optmem_max", members)
	case errors.Is(err, unix.ENOPROTOOPT):
		return ": this kernel has no SO_ATTACH_REUSEPORT_CBPF, which came with Linux 4.5"
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return ": SO_ATTACH_REUSEPORT_CBPF needs no privilege, so a seccomp profile or a security module forbids it; allow it there"
	}
	return ""
}

func (g *group) hasRetired() bool {
	return slices.ContainsFunc(g.Members, func(s *memberSocket) bool { return s.State == retired })
}

// removable finds a retired socket that can be closed without a connection going astray, -1 if there is none, and what
// has to be attached before. Between the close and the next attach the old program goes on; a number of
// the last socket is out of its range then, for which the kernel takes any socket of the group, dead ones too.
func (g *group) removable() (number int, before choice) {
	to, last := g.choice(), len(g.Members)-1
	if !slices.ContainsFunc(g.Members, func(s *memberSocket) bool { return s.State != retired }) {
		return last, to
	}
	for number := last; number >= 0; number-- {
		if g.Members[number].State == retired && !to.has(number) {
			return g.safely(number, to, last)
		}
	}
	return -1, choice{}
}

// safely tells how: as it is, if the last socket gets nothing or all others are as good; or with the last one left out
// for the moment, if there are others of its generation. Who waits in a queue that nobody accepts from is not left there
// for that: a connection that begins in this moment, and may be turned away, is made a second later.
func (g *group) safely(number int, to choice, last int) (int, choice) {
	others := to.without(last)
	switch {
	case !to.has(last), len(to.beside) == 0 && len(to.selected) == last:
		return number, to
	case len(others.selected) > 0 && len(others.beside) > 0 == (len(to.beside) > 0):
		return number, others
	case g.Members[number].awaited():
		return number, to
	}
	return -1, choice{}
}

func (g *group) waiting(s *memberSocket, _ *queueLengths) (int, error) {
	return sockdiag.QueuedTCP(s.FD)
}

func (g *group) late(_ int, q *queueLengths) (int, error) {
	late, err := q.handshakes()
	return late[g], err
}

// awaited tells whether clients wait in the socket.
func (s *memberSocket) awaited() bool {
	n, err := sockdiag.QueuedTCP(s.FD)
	return err == nil && n > 0
}

// listens tells whether the socket was not shut down.
func listens(fd int) bool {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	return err == nil && info.State == unix.BPF_TCP_LISTEN
}
