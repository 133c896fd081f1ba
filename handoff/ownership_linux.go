package handoff

import "slices"

// ownership says whose a steered socket is, and whose it was.
type ownership struct {
	Member
	state seatState
	from  *Member // who has left it to the Member; nil if it was made for that
	// orphan is set from the end of an instance until another one that has the socket is ready. Till then, if nothing of
	// the selected generation lives, all who start there have it: the restart of what has crashed, and a candidate. So
	// clients wait in one queue, whoever of them fails.
	orphan bool
	also   []Member // who has it beside the Member
}

type seatState int

const (
	serving  seatState = iota
	vacant             // its app has gone, and a successor is to come
	promised           // its successor has it, and will listen
	retired            // to be closed as soon as it is safe
)

func (o *ownership) holders() []Member { return append([]Member{o.Member}, o.also...) }

func (o *ownership) heldBy(m Member) bool { return slices.Contains(o.holders(), m) }

// serves tells whether one of the generation's instances listens on the socket.
func (o *ownership) serves(generation int) bool {
	return o.state == serving && len(o.of(generation)) > 0
}

// of are those of the generation's instances that have the socket.
func (o *ownership) of(generation int) []Member {
	return slices.DeleteFunc(o.holders(), func(m Member) bool { return m.Generation != generation })
}

// concerns tells whether the socket is the generation's, or was.
func (o *ownership) concerns(generation int) bool {
	return len(o.of(generation)) > 0 || o.from != nil && o.from.Generation == generation
}

// suits ranks a socket for an instance that binds, 0 for none. Who waits in it is to be answered by whoever comes: first
// by the instance in the same place, else by one of a later generation, or by one of the selected generation where a
// later one has failed.
func (o *ownership) suits(m Member, selected int) int {
	before := o.Member
	if o.from != nil && o.state != vacant {
		before = *o.from
	}
	switch {
	case before == m:
		return 3
	case before.Generation == m.Generation, before.Generation > m.Generation && m.Generation != selected:
		return 0
	case before.Instance == m.Instance:
		return 2
	}
	return 1
}

// promise gives the socket to an instance that it suits.
func (o *ownership) promise(m Member) {
	before := o.Member
	if o.from == nil && before != m {
		o.from = &before
	}
	if o.state == vacant {
		o.state = promised
	} else {
		o.also = append(o.also, before)
	}
	o.Member = m
}

// hold says that an instance listens on the socket.
func (o *ownership) hold(m Member) {
	if !o.heldBy(m) {
		o.Member = m
	}
	o.state = serving
}

// settle makes one of those who have the socket its owner.
func (o *ownership) settle(m Member) {
	if i := slices.Index(o.also, m); i >= 0 {
		o.also[i], o.Member = o.Member, m
	}
	o.orphan = false
}

// release gives up what an instance has left, and what others have too stays theirs. What the selected generation has
// left to another one, whose upgrade has failed or was undone, goes back to whoever is started again there, unless that
// has another one already.
func (o *ownership) release(m Member, state seatState, selected int, others []*ownership) {
	if i := slices.Index(o.also, m); i >= 0 {
		o.also = slices.Delete(o.also, i, i+1)
		return
	}
	if last := len(o.also) - 1; last >= 0 {
		o.Member, o.also = o.also[last], o.also[:last]
		return
	}
	o.state = state
	if o.from == nil || o.from.Generation != selected || *o.from == m {
		return
	}
	o.Member, o.from, o.state, o.orphan = *o.from, nil, vacant, true
	again := func(other *ownership) bool {
		return other != o && other.heldBy(o.Member) && (other.state == serving || other.state == promised)
	}
	if slices.ContainsFunc(others, again) {
		o.state = retired
	}
}

// leave is release for an instance that has ended.
func (o *ownership) leave(m Member, state seatState, selected int, others []*ownership) {
	o.release(m, state, selected, others)
	o.orphan = o.orphan || o.state == vacant
}

// settleAll makes the generation the owner of what it has.
func settleAll(owners []*ownership, generation int) {
	for _, o := range owners {
		for _, m := range o.of(generation) {
			o.settle(m)
		}
	}
}

// vacancy gives the number of the socket that suits the instance best, -1 if none does. Of those that somebody lives on
// none does, unless they are orphans and nothing of the selected generation lives.
func vacancy(owners []*ownership, m Member, selected int) int {
	lives := slices.ContainsFunc(owners, func(o *ownership) bool { return !o.orphan && o.serves(selected) })
	best, most := -1, 0
	for i, o := range owners {
		free := o.state == vacant || o.orphan && o.state != retired && !lives && !o.heldBy(m)
		if rank := o.suits(m, selected); free && rank > most {
			best, most = i, rank
		}
	}
	return best
}

// standIn gives the number of the socket that clients are led to where the selected generation has none: of one that
// lives, and that has served before, if there is such a one.
func standIn(owners []*ownership, selected int) int {
	best, most := 0, 0
	for i, o := range owners {
		rank := 0
		switch {
		case o.state == serving && o.Generation < selected:
			rank = 3
		case o.state == serving:
			rank = 2
		case o.state != retired:
			rank = 1
		}
		if rank > most {
			best, most = i, rank
		}
	}
	return best
}
