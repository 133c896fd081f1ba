package steering

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/gracerun/grace/handoff/sockdiag"
	"golang.org/x/sys/unix"
)

// group is a reuseport group of the kernel's: the sockets that listen at one site, at least one, and the program that
// chooses among them by their numbers. The kernel numbers them as they begin to listen, and when one leaves, the last moves into the
// hole (net/core/sock_reuseport.c).
type group struct {
	site     groupKey
	members  []*memberSocket // in the kernel's order
	selected int             // generation
	stale    groupSet        // where it is itself while the kernel has another program than it should
	begun    map[handshake]bool
	left     time.Time // when another generation was selected, or none
	away     bool      // none gets connections any more
}

// newGroup is that of the first socket to listen at a site.
func newGroup(at groupKey, first *memberSocket, stale groupSet) *group {
	g := &group{site: at, members: []*memberSocket{first}, selected: first.Generation, stale: stale}
	g.touch()
	return g
}

// touch has the group get another program.
func (g *group) touch() { g.stale[g] = true }

// memberSocket is one listening socket of a group. It owns its descriptor.
type memberSocket struct {
	ownership
	fd    int
	inode uint64
	uid   int
	asked bool // by the app itself for SO_REUSEPORT
}

// chosen are the numbers of the selected generation's sockets, at least one. Those without an app are chosen only where
// there is nothing else: clients wait in their queues then, and are not refused. Where nothing is left of the selected
// generation, another is better than none, until that listens again.
func (g *group) chosen() []int {
	most := 0
	for _, s := range g.members {
		most = max(most, s.attracts(g.selected))
	}
	if most > 0 {
		return g.numbers(func(s *memberSocket) bool { return s.attracts(g.selected) == most })
	}
	next := g.members[standIn(g.owners(), g.selected)]
	return g.numbers(func(s *memberSocket) bool {
		return s.Generation == next.Generation && s.standsIn(g.selected) == next.standsIn(g.selected)
	})
}

func (g *group) numbers(which func(*memberSocket) bool) []int {
	var numbers []int
	for i, s := range g.members {
		if which(s) {
			numbers = append(numbers, i)
		}
	}
	return numbers
}

func (g *group) has(generation int) bool {
	return slices.ContainsFunc(g.members, func(s *memberSocket) bool { return s.serves(generation) })
}

func (g *group) owners() []*ownership {
	var owners []*ownership
	for _, s := range g.members {
		owners = append(owners, &s.ownership)
	}
	return owners
}

// vacancy finds what has been left to the instance, or nil.
func (g *group) vacancy(m InstanceKey) *memberSocket {
	if i := vacancy(g.owners(), m, g.selected); i >= 0 {
		return g.members[i]
	}
	return nil
}

// abandon gives up a socket that nobody has any more.
func (g *group) abandon(s *memberSocket, state seatState) {
	for _, m := range s.members() {
		s.release(m, state, g.selected, g.owners())
	}
	g.touch()
}

// choose makes another generation the selected one, from the next attach on.
func (g *group) choose(generation int) {
	g.touch()
	if g.selected != generation {
		g.selected, g.begun, g.left = generation, nil, time.Now()
	}
}

func (g *group) turnAway() {
	g.away, g.begun, g.left = true, nil, time.Now()
	g.touch()
}

// add takes in a socket that has just begun to listen.
func (g *group) add(s *memberSocket) {
	for _, other := range g.members {
		if other.InstanceKey == s.InstanceKey && other.state == vacant {
			other.state = retired
		}
	}
	g.members = append(g.members, s)
	g.touch()
}

// remove numbers the rest as the kernel does; it is not for the last one.
func (g *group) remove(number int) {
	last := len(g.members) - 1
	g.members[number] = g.members[last]
	g.members = g.members[:last]
	g.touch()
}

// give makes a socket another instance's, which listens on it.
func (g *group) give(s *memberSocket, m InstanceKey) {
	s.hold(m)
	g.touch()
}

// apply makes the kernel do as the group is now. When an app shuts its socket down, the numbers change before another
// program is there, and those of the old one can mean any socket. So each that is not to get a connection turns
// newcomers away: its app may be about to end, or has gone, or is not ready yet.
func (g *group) apply(probes map[uint16]InstanceKey) error {
	if g.away {
		for _, s := range g.members {
			turnAway(s.fd)
		}
		return nil
	}
	chosen, targets := g.chosen(), g.targets(probes)
	wanted := slices.Concat(append(slices.Collect(maps.Values(targets)), chosen)...)
	for _, number := range wanted {
		if err := admit(g.members[number].fd); err != nil {
			return fmt.Errorf("cannot steer %s: %w", g.site.at, err)
		}
	}
	if err := g.attach(chosen, targets); err != nil {
		return err
	}
	for number, s := range g.members {
		if !slices.Contains(wanted, number) {
			turnAway(s.fd)
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
func (g *group) attach(chosen []int, targets map[uint16][]int) error {
	if g.away {
		return nil // none is led to, and the selected generation's may have been let go
	}
	filter := selector(chosen, targets)
	program := unix.SockFprog{Len: uint16(min(len(filter), 1<<16-1)), Filter: &filter[0]}
	err := unix.SetsockoptSockFprog(g.members[chosen[0]].fd, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF, &program)
	if err != nil {
		return fmt.Errorf("cannot steer %s: %w%s", g.site.at, err, attachHint(err, len(chosen)))
	}
	return nil
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

// leave gives the instance's sockets another state.
func (g *group) leave(m InstanceKey, state seatState) {
	for _, s := range g.members {
		if s.heldBy(m) {
			s.leave(m, state, g.selected, g.owners())
			g.touch()
		}
	}
}

func (g *group) hasRetired() bool {
	return slices.ContainsFunc(g.members, func(s *memberSocket) bool { return s.state == retired })
}

// removable finds a retired socket that can be closed without a connection going astray, -1 if there is none, and the
// numbers that have to be attached before. Between the close and the next attach the old program goes on; a number of
// the last socket is out of its range then, for which the kernel takes any socket of the group, dead ones too.
func (g *group) removable() (number int, before []int) {
	chosen, last := g.chosen(), len(g.members)-1
	if !slices.ContainsFunc(g.members, func(s *memberSocket) bool { return s.state != retired }) {
		return last, chosen
	}
	unused := func(number int) bool { return g.members[number].state == retired && !slices.Contains(chosen, number) }
	for number := last; number >= 0; number-- {
		if unused(number) {
			return g.safely(number, chosen, last)
		}
	}
	return -1, nil
}

// safely tells how: as it is, if the last socket gets nothing or all others are as good; or with the last one left out
// for the moment, if there are others. Who waits in a queue that nobody accepts from is not left there for that: a
// connection that begins in this moment, and may be turned away, is made a second later.
func (g *group) safely(number int, chosen []int, last int) (int, []int) {
	others := slices.DeleteFunc(slices.Clone(chosen), func(n int) bool { return n == last })
	switch {
	case len(others) == len(chosen), len(chosen) == last:
		return number, chosen
	case len(others) > 0:
		return number, others
	case g.members[number].awaited():
		return number, chosen
	}
	return -1, nil
}

// queued counts the connections that wait in the generation's queues to be accepted.
func (g *group) queued(generation int) (sum int, err error) {
	for _, s := range g.members {
		if s.Generation != generation {
			continue
		}
		n, err := sockdiag.QueuedTCP(s.fd)
		if err != nil {
			return 0, fmt.Errorf("cannot read the queue of %s: %w", g.site.at, err)
		}
		sum += n
	}
	return sum, nil
}

// awaited tells whether clients wait there.
func (s *memberSocket) awaited() bool {
	n, err := sockdiag.QueuedTCP(s.fd)
	return err == nil && n > 0
}

// listens tells whether the socket was not shut down.
func listens(fd int) bool {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	return err == nil && info.State == unix.BPF_TCP_LISTEN
}
