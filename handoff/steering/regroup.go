package steering

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// Move gives an instance another name.
type Move struct{ From, To InstanceKey }

// Regroup renames instances, all at once, and steers by the new names, in one step per address: who comes to a generation
// that gets no connections gets no new ones any more, and who comes to one that gets some gets its part of them, or the
// path. Queued counts the handshakes that have begun for who leaves by its new generation, as after a Steer. Where nothing
// else of the generation listens, who has left it goes on.
//
// It takes instances out of service, and replaces one by another: {3 2} to {-6 2} and {-5 2} to {3 2} in one call. Every
// number but 0 is a generation's. The name has to be free: the sockets of who has it, or had it last, are moved as well, or
// retired before.
func (s *Steering) Regroup(moves []Move) error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.drain()
	n, err := s.namesAfter(moves)
	if err != nil {
		return err
	}
	for _, b := range s.bound {
		b.InstanceKey = n.of(b.InstanceKey)
		for i, m := range b.Also {
			b.Also[i] = n.of(m)
		}
	}
	ready := make(map[InstanceKey]bool)
	for m := range s.ready {
		ready[n.of(m)] = true
	}
	s.ready = ready
	for port, m := range s.probes {
		s.probes[port] = n.of(m)
	}
	for i := range s.left {
		s.left[i].InstanceKey = n.of(s.left[i].InstanceKey)
	}
	for _, p := range s.places() {
		p.rename(n)
	}
	return s.apply()
}

// names are those that instances get.
type names map[InstanceKey]InstanceKey

func (n names) of(m InstanceKey) InstanceKey {
	if to, moved := n[m]; moved {
		return to
	}
	return m
}

// namesAfter refuses names that two instances would have. One that has ended is none.
func (s *Steering) namesAfter(moves []Move) (names, error) {
	n := names{}
	for _, move := range moves {
		if _, twice := n[move.From]; twice {
			return nil, fmt.Errorf("cannot move instance %d of generation %d: it is to be moved twice", move.From.Instance, move.From.Generation)
		}
		n[move.From] = move.To
	}
	given := map[InstanceKey]bool{}
	for _, move := range moves {
		_, leaves := n[move.To]
		if given[move.To] || !leaves && s.knows(move.To) {
			return nil, fmt.Errorf("cannot move instance %d of generation %d: there is an instance %d of generation %d already",
				move.From.Instance, move.From.Generation, move.To.Instance, move.To.Generation)
		}
		given[move.To] = true
	}
	return n, nil
}

// knows tells whether the instance has bound or listens anywhere.
func (s *Steering) knows(m InstanceKey) bool {
	if slices.ContainsFunc(slices.Collect(maps.Values(s.bound)), func(b *binding) bool { return slices.Contains(b.holders(), m) }) {
		return true
	}
	return slices.ContainsFunc(s.pathSockets(), func(member *memberSocket) bool { return member.keptBy(m) }) ||
		slices.ContainsFunc(s.places(), func(p place) bool { return len(p.list().keptBy(m)) > 0 })
}

// concern tells whether one of the instances has the socket, or had it.
func (n names) concern(o *ownership) bool {
	moves := func(m InstanceKey) bool { return n.of(m) != m }
	return slices.ContainsFunc(o.members(), moves) || o.From != nil && moves(*o.From)
}

func (o *ownership) rename(n names) {
	o.InstanceKey = n.of(o.InstanceKey)
	for i := range o.Also {
		o.Also[i].InstanceKey = n.of(o.Also[i].InstanceKey)
	}
	if o.From != nil {
		from := n.of(*o.From)
		o.From = &from
	}
}

// rename gives the names to those at the place. It tells whether one of them gets no connections any more, and which
// sockets come to get some.
func (l *memberList) rename(n names) (replaced bool, comers []*memberSocket) {
	for _, s := range l.Members {
		before := s.members()
		s.ownership.rename(n)
		for _, m := range before {
			to := n.of(m)
			switch got, gets := l.gets(m.Generation), l.gets(to.Generation); {
			case got && !gets:
				s.Served, replaced = true, true
			case !got && gets:
				s.settle(to)
				comers = append(comers, s)
			}
		}
	}
	return replaced, comers
}

func (g *group) rename(n names) {
	if slices.ContainsFunc(g.owners(), n.concern) {
		g.touch()
	}
	if replaced, _ := g.memberList.rename(n); replaced {
		g.Replaced, g.Begun, g.Counted = time.Now(), nil, false
	}
}

// rename makes those the newest that come to the generation which has the path: one of them is to have it.
func (g *pathGroup) rename(n names) {
	for _, s := range g.Hidden {
		s.ownership.rename(n)
	}
	replaced, comers := g.memberList.rename(n)
	if replaced {
		g.Replaced = time.Now()
	}
	g.Members = append(slices.DeleteFunc(g.Members, func(s *memberSocket) bool { return slices.Contains(comers, s) }), comers...)
}
