package steering

import (
	"fmt"
	"slices"
	"time"

	"github.com/gracerun/grace/handoff/socket"
)

// place is where each generation has sockets of its own: a TCP address (group) or a unix path (pathGroup).
type place interface {
	String() string
	// socket is one of the place's that the instance listens on.
	socket(m InstanceKey, inode uint64) SteeredSocket
	list() *memberList
	// choose makes the generation the selected one, from the next apply on.
	choose(generation int)
	// touch has the next apply do as the place is by then.
	touch()
	// turnAway keeps new connections from all sockets of the place.
	turnAway() error
	// waiting counts the connections that wait in the socket to be accepted.
	waiting(s *memberSocket, q *queueLengths) (int, error)
	// late counts the connections that may still come into the generation's queues where it gets nothing new.
	late(generation int, q *queueLengths) (int, error)
}

// memberSocket is one socket of a place. It owns its descriptor. A successor of this process gets the exported fields.
type memberSocket struct {
	ownership
	FD        int // -1 as long as a unix socket does not listen
	Inode     uint64
	UID       int  `json:",omitzero"` // of TCP, as Asked
	Asked     bool `json:",omitzero"` // by the app itself for SO_REUSEPORT
	Multipath bool `json:",omitzero"` // MPTCP, by which no program can be attached
	pathName
}

// memberList is the sockets of one place. A successor of this process gets the exported fields.
type memberList struct {
	Members  []*memberSocket
	Selected int       // generation
	Replaced time.Time // when another generation was selected, or none
	away     bool      // none gets connections any more
}

func (l *memberList) list() *memberList { return l }

func (l *memberList) has(generation int) bool {
	return slices.ContainsFunc(l.Members, func(s *memberSocket) bool { return s.serves(generation) })
}

// concerns tells whether one of the sockets is the generation's, or was.
func (l *memberList) concerns(generation int) bool {
	return slices.ContainsFunc(l.Members, func(s *memberSocket) bool { return s.concerns(generation) })
}

func (l *memberList) owners() []*ownership {
	var owners []*ownership
	for _, s := range l.Members {
		owners = append(owners, &s.ownership)
	}
	return owners
}

// chosen are the numbers of the selected generation's sockets, at least one where there are any. Those without an app are
// chosen only where there is nothing else: clients wait in their queues then, and are not refused. Where nothing is left
// of the selected generation, another is better than none, until that listens again.
func (l *memberList) chosen() []int {
	most := 0
	for _, s := range l.Members {
		most = max(most, s.attracts(l.Selected))
	}
	if most > 0 || len(l.Members) == 0 {
		return l.numbers(func(s *memberSocket) bool { return s.attracts(l.Selected) == most })
	}
	next := l.Members[standIn(l.owners(), l.Selected)]
	return l.numbers(func(s *memberSocket) bool {
		return s.Generation == next.Generation && s.standsIn(l.Selected) == next.standsIn(l.Selected)
	})
}

func (l *memberList) numbers(which func(*memberSocket) bool) []int {
	var numbers []int
	for i, s := range l.Members {
		if which(s) {
			numbers = append(numbers, i)
		}
	}
	return numbers
}

// keptBy gives the inodes of the instance's sockets, one that it was given and has not used included.
func (l *memberList) keptBy(m InstanceKey) []uint64 {
	var inodes []uint64
	for _, s := range l.Members {
		if s.keptBy(m) {
			inodes = append(inodes, s.Inode)
		}
	}
	return inodes
}

// vacancy finds what has been left to the instance, or nil.
func (l *memberList) vacancy(m InstanceKey) *memberSocket {
	if i := vacancy(l.owners(), m, l.Selected); i >= 0 {
		return l.Members[i]
	}
	return nil
}

// add takes in a socket that has just begun to listen.
func (l *memberList) add(s *memberSocket) {
	for _, other := range l.Members {
		if other.InstanceKey == s.InstanceKey && other.State == vacant {
			other.State = retired
		}
	}
	l.Members = append(l.Members, s)
}

// selects tells whether the generation was not the selected one before.
func (l *memberList) selects(generation int) bool {
	if l.Selected == generation {
		return false
	}
	l.Selected, l.Replaced = generation, time.Now()
	return true
}

// settle makes the generation the owner of what it has.
func (l *memberList) settle(generation int) {
	for _, s := range l.Members {
		for _, m := range of(generation, s.members()) {
			s.settle(m)
		}
	}
}

// abandon gives up a socket that nobody has any more.
func (l *memberList) abandon(s *memberSocket, state socketState) {
	for _, m := range s.members() {
		s.release(m, state, l.Selected, l.owners())
	}
}

// leave gives the sockets of an instance that has ended another state.
func (l *memberList) leave(m InstanceKey, state socketState) {
	for _, s := range l.Members {
		if s.heldBy(m) {
			s.leave(m, state, l.Selected, l.owners())
		}
	}
}

// takeOver gives the sockets of a predecessor their descriptors here. It leaves out who else has a socket: while that
// matters an upgrade is under way, and no successor begins. After an error those that have none are not in the list.
func (l *memberList) takeOver(fds socket.Descriptors) error {
	for i, s := range l.Members {
		fd, err := fds.Take(s.FD)
		if err != nil {
			l.Members = l.Members[:i]
			return err
		}
		s.FD, s.orphan = fd, s.State == vacant
	}
	return nil
}

// places are all: the addresses in their order, and the paths as they were declared.
func (s *Steering) places() []place {
	var all []place
	for _, g := range s.sorted() {
		all = append(all, g)
	}
	for _, g := range s.paths {
		all = append(all, g)
	}
	return all
}

// queued counts what waits for the generation at a place, and what may still be on its way.
func queued(p place, generation int, q *queueLengths) (int, error) {
	sum, err := p.late(generation, q)
	for _, s := range p.list().Members {
		if s.Generation != generation || err != nil {
			continue
		}
		var n int
		n, err = p.waiting(s, q)
		sum += n
	}
	if err != nil {
		return 0, fmt.Errorf("cannot read the queue of %s: %w", p, err)
	}
	return sum, nil
}
