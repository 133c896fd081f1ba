package steering

import "slices"

// ownership says whose a steered socket is, and whose it was. A successor of this process gets it.
type ownership struct {
	share
	From *InstanceKey `json:",omitzero"` // who has left it to the InstanceKey; nil if it was made for that
	// Orphan is set from the end of an instance until another one that has the socket is ready. Till then, if nothing of
	// the selected generation lives, all who start there have it: the restart of what has crashed, and a candidate. So
	// clients wait in one queue, whoever of them fails.
	Orphan bool    `json:",omitzero"`
	Also   []share `json:",omitzero"` // who has it beside the InstanceKey: each of them has promised or serving for a state
	Served bool    `json:",omitzero"` // before its instance was moved to a generation that gets nothing, see Regroup
	// Unready is set until an instance that listens on it is ready. Till then others of the generation get its connections: who
	// starts may take long to answer, or end before that.
	Unready bool `json:",omitzero"`
}

// share is what an instance has of a socket, or had last. Who has only bound it serves nobody, though another one listens on
// it.
type share struct {
	InstanceKey
	State socketState `json:",omitzero"`
}

type socketState int

const (
	serving  socketState = iota
	vacant               // its app has gone, and a successor is to come
	promised             // its successor has it, and will listen
	retired              // to be closed as soon as it is safe
)

func makeFor(m InstanceKey) ownership { return ownership{share: share{InstanceKey: m}} }

func (o *ownership) shares() []share { return append([]share{o.share}, o.Also...) }

// members are those that have the socket, or had it last.
func (o *ownership) members() (all []InstanceKey) {
	for _, s := range o.shares() {
		all = append(all, s.InstanceKey)
	}
	return all
}

func (o *ownership) heldBy(m InstanceKey) bool { return slices.Contains(o.members(), m) }

// keptBy tells whether the instance has the socket, and has not ended.
func (o *ownership) keptBy(m InstanceKey) bool {
	return slices.Contains(o.shares(), share{m, serving}) || slices.Contains(o.shares(), share{m, promised})
}

// listeners are the instances that listen on the socket.
func (o *ownership) listeners() (all []InstanceKey) {
	for _, s := range o.shares() {
		if s.State == serving {
			all = append(all, s.InstanceKey)
		}
	}
	return all
}

// serves tells whether one of the generation's instances listens on the socket.
func (o *ownership) serves(generation int) bool { return len(of(generation, o.listeners())) > 0 }

// servesOnly tells whether those are all who listen.
func (o *ownership) servesOnly(generation int) bool {
	return o.serves(generation) && len(of(generation, o.listeners())) == len(o.listeners())
}

// vacatedBy tells whether the socket waits for another instance of the generation.
func (o *ownership) vacatedBy(generation int) bool {
	return o.State == vacant && o.Generation == generation
}

func of(generation int, members []InstanceKey) []InstanceKey {
	return slices.DeleteFunc(members, func(m InstanceKey) bool { return m.Generation != generation })
}

// concerns tells whether the socket is the generation's, or was.
func (o *ownership) concerns(generation int) bool {
	return len(of(generation, o.members())) > 0 || o.From != nil && o.From.Generation == generation
}

// attractsLive is from which rank on somebody of the generation lives.
const attractsLive = 2

// attracts ranks a socket for the clients of a generation that is to get some, 0 for none of its. What an instance of
// another one answers too comes last, as that may be a candidate which fails, and what an instance answers that is not ready
// yet before it. Where none listens, clients wait for who is
// to come.
func (o *ownership) attracts(generation int) int {
	switch {
	case o.State == retired:
		return 0
	case o.servesOnly(generation) && !o.Unready:
		return attractsLive + 2
	case o.servesOnly(generation):
		return attractsLive + 1
	case o.serves(generation):
		return attractsLive
	case o.concerns(generation):
		return 1
	}
	return 0
}

// outsiders is the generation of servers that grace has not started. Lower numbers are given by a Regroup, or for one.
const outsiders = -1

// standsIn ranks a socket for them where the selected generation has none: one that lives, and that has served before,
// is better than another.
func (o *ownership) standsIn(selected int) int {
	served := func(m InstanceKey) bool { return o.Served || outsiders <= m.Generation && m.Generation < selected }
	switch {
	case slices.ContainsFunc(o.listeners(), served):
		return 3
	case len(o.listeners()) > 0:
		return 2
	case o.State != retired:
		return 1
	}
	return 0
}

// suits ranks a socket for an instance that binds, 0 for none. Who waits in it is to be answered by whoever comes: first
// by the instance in the same place, else by one of a later generation, or by one of the selected generation where a
// later one has failed.
func (o *ownership) suits(m InstanceKey, selected int) int {
	before := o.InstanceKey
	if o.From != nil && o.State != vacant {
		before = *o.From
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

// promise gives the socket to an instance that it suits. Who has left it before the selected generation had it gets it back
// no more.
func (o *ownership) promise(m InstanceKey, selected int) {
	if before := o.InstanceKey; before != m && (o.From == nil || o.From.Generation != selected) {
		o.From = &before
	}
	if o.State != vacant {
		o.Also = append(o.Also, o.share)
	}
	o.share = share{m, promised}
}

// hold says that an instance listens on the socket. It can be one of several that had it before it was shut down.
func (o *ownership) hold(m InstanceKey) {
	switch i := o.among(m); {
	case i >= 0:
		o.Also[i].State = serving
	case o.InstanceKey != m && (o.State == serving || o.State == promised):
		o.Also = append(o.Also, share{m, serving})
	default:
		o.share = share{m, serving}
	}
}

// among gives the number of an instance among those who have the socket beside its owner, or -1.
func (o *ownership) among(m InstanceKey) int {
	return slices.IndexFunc(o.Also, func(s share) bool { return s.InstanceKey == m })
}

// settle makes one of those who have the socket its owner.
func (o *ownership) settle(m InstanceKey) {
	if i := o.among(m); i >= 0 {
		o.Also[i], o.share = o.share, o.Also[i]
	}
	o.Orphan = false
}

func (o *ownership) settleAll(members []InstanceKey) {
	for _, m := range members {
		o.settle(m)
	}
}

// release gives up what an instance has left, and what others have too stays theirs. What the selected generation has
// left to another one, whose upgrade has failed or was undone, goes back to whoever is started again there, unless that
// has another one already.
func (o *ownership) release(m InstanceKey, state socketState, selected int, others []*ownership) {
	if i := o.among(m); i >= 0 {
		o.Also = slices.Delete(o.Also, i, i+1)
		return
	}
	if last := len(o.Also) - 1; last >= 0 {
		o.share, o.Also = o.Also[last], o.Also[:last]
		return
	}
	o.State = state
	if o.From == nil || o.From.Generation != selected || *o.From == m {
		return
	}
	o.InstanceKey, o.From, o.State, o.Orphan = *o.From, nil, vacant, true
	again := func(other *ownership) bool { return other != o && other.keptBy(o.InstanceKey) }
	if slices.ContainsFunc(others, again) {
		o.State = retired
	}
}

// leave is release for an instance that has ended.
func (o *ownership) leave(m InstanceKey, state socketState, selected int, others []*ownership) {
	o.release(m, state, selected, others)
	o.Orphan = o.Orphan || o.State == vacant || m.Generation == selected && !o.serves(selected)
}

// vacancy gives the number of the socket that suits the instance best, -1 if none does. Of those that somebody lives on
// none does, unless they are orphans, and nothing of the selected generation lives or it was the instance's own.
func vacancy(owners []*ownership, m InstanceKey, selected int) int {
	lives := slices.ContainsFunc(owners, func(o *ownership) bool { return !o.Orphan && o.serves(selected) })
	best, most := -1, 0
	for i, o := range owners {
		rank := o.suits(m, selected)
		free := o.State == vacant || o.Orphan && o.State != retired && !o.heldBy(m) && (!lives || rank == 3)
		if free && rank > most {
			best, most = i, rank
		}
	}
	return best
}

// standIn gives the number of the socket that clients are led to where the selected generation has none.
func standIn(owners []*ownership, selected int) int {
	best, most := 0, 0
	for i, o := range owners {
		if rank := o.standsIn(selected); rank > most {
			best, most = i, rank
		}
	}
	return best
}
