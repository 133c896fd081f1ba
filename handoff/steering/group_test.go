package steering

import (
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// shapes calls visit with every group of up to five sockets: of two generations in every state, and of a third one that
// serves. The first has all, or the second has a share.
func shapes(visit func(*group)) {
	kinds := []memberSocket{{ownership: makeFor(InstanceKey{3, 0})}}
	for generation := range 2 {
		for _, state := range []socketState{serving, vacant, retired} {
			kinds = append(kinds, memberSocket{ownership: ownership{share: share{InstanceKey{generation + 1, 0}, state}}})
		}
	}
	for total, size := len(kinds), 1; size <= 5; total, size = total*len(kinds), size+1 {
		for shape := range total {
			for _, beside := range []int{0, 2} {
				g := &group{memberList: memberList{Selected: 1, Beside: beside, Share: 500}, stale: groupSet{}}
				for rest := shape; len(g.Members) < size; rest /= len(kinds) {
					kind := kinds[rest%len(kinds)]
					g.Members = append(g.Members, &kind)
				}
				if len(g.numbers(func(s *memberSocket) bool { return s.Generation == 1 })) > 0 {
					visit(g)
				}
			}
		}
	}
}

// afterRemoval are the sockets that can get a connection between the close of a socket and the next attach: what the
// old program's numbers mean now, and any socket if one of them means none.
func afterRemoval(members []*memberSocket, number int, program []int) []*memberSocket {
	rest := slices.Clone(members)
	rest[number] = rest[len(rest)-1]
	rest = rest[:len(rest)-1]
	var reached []*memberSocket
	for _, n := range program {
		if n >= len(rest) {
			return rest
		}
		reached = append(reached, rest[n])
	}
	return reached
}

func TestNoRemovalLetsAConnectionGoAstray(t *testing.T) {
	removed := map[bool]int{}
	shapes(func(g *group) {
		number, before := g.removable()
		if number < 0 {
			return
		}
		to := g.choice()
		removed[len(to.beside) > 0]++
		if g.Members[number].State != retired {
			t.Fatalf("%v: %d has not retired", states(g), number)
		}
		if len(before.beside) > 0 != (len(to.beside) > 0) {
			t.Fatalf("%v: there is another split while %d is removed", states(g), number)
		}
		checkRemoval(t, g, number, before.selected, to.selected)
		checkRemoval(t, g, number, before.beside, to.beside)
	})
	if removed[false] < 1000 || removed[true] < 1000 {
		t.Errorf("%v removals", removed)
	}
}

// checkRemoval is for the sockets of one generation.
func checkRemoval(t *testing.T, g *group, number int, before, chosen []int) {
	t.Helper()
	allRetired := !slices.ContainsFunc(g.Members, func(s *memberSocket) bool { return s.State != retired })
	var good []*memberSocket
	for _, n := range chosen {
		good = append(good, g.Members[n])
	}
	for _, n := range before {
		if !slices.Contains(good, g.Members[n]) {
			t.Fatalf("%v: %d is chosen before %d is removed", states(g), n, number)
		}
	}
	for _, s := range afterRemoval(g.Members, number, before) {
		if !slices.Contains(good, s) && !allRetired {
			t.Fatalf("%v: %+v can get a connection when %d is removed", states(g), *s, number)
		}
	}
}

func TestWhatCanBeRemovedIs(t *testing.T) {
	old, next, candidate := memberSocket{ownership: ownership{share: share{State: retired}}}, memberSocket{ownership: makeFor(InstanceKey{Generation: 1})}, memberSocket{ownership: makeFor(InstanceKey{Generation: 2})}
	tests := []struct {
		name    string
		members []*memberSocket
		want    bool
	}{
		{"the replaced one", []*memberSocket{&old, &next}, true},
		{"two replaced ones and one socket", []*memberSocket{&old, &old, &next}, false},
		{"two replaced ones and two sockets", []*memberSocket{&old, &old, &next, &next}, true},
		{"two replaced ones and a candidate", []*memberSocket{&old, &old, &next, &candidate}, true},
		{"a failed candidate", []*memberSocket{&next, &old}, true},
		{"none", []*memberSocket{&next, &candidate}, false},
	}
	for _, test := range tests {
		g := &group{memberList: memberList{Members: test.members, Selected: 1}, stale: groupSet{}}
		if number, _ := g.removable(); number >= 0 != test.want {
			t.Errorf("%s: %d", test.name, number)
		}
	}
}

func states(g *group) []memberSocket {
	var states []memberSocket
	for _, s := range g.Members {
		states = append(states, *s)
	}
	return states
}

func TestHintsOfARefusedProgram(t *testing.T) {
	for _, tt := range []struct {
		err     error
		members int
		want    string
	}{
		{unix.EOPNOTSUPP, 1, "without MPTCP"},
		{unix.ENOMEM, 1, "net.core.optmem_max"},
		{unix.EINVAL, 200, "200 sockets share the address"},
		{unix.ENOPROTOOPT, 1, "Linux 4.5"},
		{unix.EPERM, 1, "seccomp profile"},
		{unix.EACCES, 1, "security module"},
	} {
		if got := attachHint(tt.err, tt.members); !strings.HasPrefix(got, ": ") || !strings.Contains(got, tt.want) {
			t.Errorf("%v with %d sockets: %q", tt.err, tt.members, got)
		}
	}
	if got := attachHint(unix.EINVAL, 1); got != "" {
		t.Errorf("one socket that is unfit for another reason: %q", got)
	}
}
