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
	// choose has new connections go where the split says, from the next apply on.
	choose(to Split)
	// rename gives instances other names, by which the next apply goes.
	rename(n names)
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
	Beside   int       `json:",omitzero"` // see Split, as Share and ByClient; a path has none
	Share    int       `json:",omitzero"` // of Beside, more than 0
	ByClient bool      `json:",omitzero"`
	Replaced time.Time `json:",omitzero"` // when a generation got connections no more
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

// serves tells whether a generation lives that new connections are for.
func (l *memberList) serves() bool { return l.has(l.Selected) || l.Beside != 0 && l.has(l.Beside) }

// losesTo tells whether another generation would lose connections to a more specific address of this one.
func (l *memberList) losesTo(generation int) bool {
	return l.Selected != generation && (l.has(l.Selected) || l.Beside != 0 && l.Beside != generation && l.has(l.Beside))
}

// choice is who gets new connections: the selected generation's sockets, and those of the one beside it, at least one where
// there are any. Those without an app are chosen only where there is nothing else: clients wait in their queues then, and
// are not refused. Where nothing is left of either generation, another is better than none, until one of them listens again.
func (l *memberList) choice() choice {
	selected, rank := l.attracted(l.Selected)
	beside, besideRank := l.attractedBeside()
	switch {
	case min(rank, besideRank) >= attractsLive:
		return choice{selected: selected, beside: beside, split: l.split()}
	case besideRank > rank:
		return choice{selected: beside}
	case rank > 0 || len(l.Members) == 0:
		return choice{selected: selected}
	}
	next := l.Members[standIn(l.owners(), l.Selected)]
	return choice{selected: l.numbers(func(s *memberSocket) bool {
		return s.Generation == next.Generation && s.standsIn(l.Selected) == next.standsIn(l.Selected)
	})}
}

// attracted are the numbers of the sockets that attract the generation's clients most, and how much.
func (l *memberList) attracted(generation int) (numbers []int, most int) {
	for _, s := range l.Members {
		most = max(most, s.attracts(generation))
	}
	if most == 0 {
		return nil, 0
	}
	return l.numbers(func(s *memberSocket) bool { return s.attracts(generation) == most }), most
}

func (l *memberList) attractedBeside() (numbers []int, most int) {
	if l.Beside == 0 {
		return nil, 0
	}
	return l.attracted(l.Beside)
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

// settle makes who gets connections the owner of what it has, and of what both have the selected generation.
func (l *memberList) settle() {
	for _, s := range l.Members {
		if l.Beside != 0 {
			s.settleAll(of(l.Beside, s.members()))
		}
		s.settleAll(of(l.Selected, s.members()))
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

// takeOver gives the sockets of a predecessor their descriptors here. After an error those that have none are not in the list.
func (l *memberList) takeOver(fds socket.Descriptors) error {
	for i, s := range l.Members {
		fd, err := fds.Take(s.FD)
		if err != nil {
			l.Members = l.Members[:i]
			return err
		}
		s.FD, s.Orphan = fd, s.Orphan || s.State == vacant
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
