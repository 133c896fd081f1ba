package handoff

import "slices"

// ownership says whose a steered socket is, and whose it was.
type ownership struct {
	Member
	state seatState
	from  *Member // who has left it to the Member; nil if it was made for that
}

type seatState int

const (
	serving  seatState = iota
	vacant             // its app has gone, and a successor is to come
	promised           // its successor has it, and will listen
	retired            // to be closed as soon as it is safe
)

func (o *ownership) serves(generation int) bool {
	return o.Generation == generation && o.state == serving
}

// of tells whether the socket is the generation's, or was.
func (o *ownership) of(generation int) bool {
	return o.Generation == generation || o.from != nil && o.from.Generation == generation
}

// suits ranks a socket for an instance that binds, 0 for none. Who waits in a vacant one is to be answered by whoever
// comes: first by the instance in the same place, else by one of a later generation, or by one of the selected generation
// where a later one has failed.
func (o *ownership) suits(m Member, selected int) int {
	switch {
	case o.state != vacant:
		return 0
	case o.Member == m:
		return 3
	case o.Generation == m.Generation, o.Generation > m.Generation && m.Generation != selected:
		return 0
	case o.Instance == m.Instance:
		return 2
	}
	return 1
}

func (o *ownership) promise(m Member) {
	if before := o.Member; before != m {
		o.from = &before
	}
	o.Member, o.state = m, promised
}

// release gives up what its instance has left. What the selected generation has left to another one, whose upgrade has
// failed or was undone, goes back to whoever is started again there, unless that has another one already.
func (o *ownership) release(state seatState, selected int, others []*ownership) {
	o.state = state
	if o.from == nil || o.from.Generation != selected {
		return
	}
	o.Member, o.from, o.state = *o.from, nil, vacant
	again := func(other *ownership) bool {
		return other.Member == o.Member && (other.state == serving || other.state == promised)
	}
	if slices.ContainsFunc(others, again) {
		o.state = retired
	}
}

// vacancy gives the number of the socket that suits the instance best, -1 if none does.
func vacancy(owners []*ownership, m Member, selected int) int {
	best, most := -1, 0
	for i, o := range owners {
		if rank := o.suits(m, selected); rank > most {
			best, most = i, rank
		}
	}
	return best
}
