package steering

import (
	"maps"
	"slices"
)

// index finds groups and bindings by what is asked for at each bind and listen: there can be thousands. Only what has
// the same port can collide.
type index struct {
	groups  map[groupKey]*group
	atPort  map[uint16]groupSet
	byInode map[uint64]*group // by inode
	bound   map[uint64]*binding
	boundAt map[uint16]map[uint64]*binding
	stale   groupSet // the kernel has another program than it should
	unswept groupSet // a socket may have retired
}

type groupSet map[*group]bool

func newIndex() index {
	return index{
		groups: make(map[groupKey]*group), atPort: make(map[uint16]groupSet), byInode: make(map[uint64]*group),
		bound: make(map[uint64]*binding), boundAt: make(map[uint16]map[uint64]*binding),
		stale: make(groupSet), unswept: make(groupSet),
	}
}

// enlist takes in a group, or another socket of it.
func (x *index) enlist(g *group, s *memberSocket) {
	port := g.Key.At.Port()
	if x.atPort[port] == nil {
		x.atPort[port] = make(groupSet)
	}
	x.groups[g.Key], x.atPort[port][g], x.byInode[s.Inode] = g, true, g
}

// strike takes out a socket that was the group's last, or one of several.
func (x *index) strike(g *group, s *memberSocket, last bool) {
	delete(x.byInode, s.Inode)
	if !last {
		return
	}
	port := g.Key.At.Port()
	delete(x.groups, g.Key)
	delete(x.stale, g)
	delete(x.unswept, g)
	if delete(x.atPort[port], g); len(x.atPort[port]) == 0 {
		delete(x.atPort, port)
	}
}

func (x *index) find(inode uint64) (*group, *memberSocket) {
	g := x.byInode[inode]
	if g == nil {
		return nil, nil
	}
	return g, g.Members[slices.IndexFunc(g.Members, func(s *memberSocket) bool { return s.Inode == inode })]
}

func (x *index) bind(b *binding) {
	port := b.Key.At.Port()
	x.unbind(b.Inode)
	if x.boundAt[port] == nil {
		x.boundAt[port] = make(map[uint64]*binding)
	}
	x.bound[b.Inode], x.boundAt[port][b.Inode] = b, b
}

func (x *index) unbind(inode uint64) {
	b := x.bound[inode]
	if b == nil {
		return
	}
	port := b.Key.At.Port()
	delete(x.bound, inode)
	if delete(x.boundAt[port], inode); len(x.boundAt[port]) == 0 {
		delete(x.boundAt, port)
	}
}

// sorted are all groups.
func (x *index) sorted() []*group { return sortedGroups(maps.Values(x.groups)) }

func (g groupSet) sorted() []*group { return sortedGroups(maps.Keys(g)) }

func sortedGroups(groups func(func(*group) bool)) []*group {
	return slices.SortedFunc(groups, func(a, b *group) int { return a.Key.compare(b.Key) })
}
