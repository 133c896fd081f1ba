package steering

import (
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/gracerun/grace/handoff/internal/apptest"
	"golang.org/x/sys/unix"
)

// regroup renames in the steering and here.
func (c *crowd) regroup(moves ...Move) {
	c.t.Helper()
	apptest.Must(c.t, c.s.Regroup(moves))
	for a, m := range c.members {
		for _, move := range moves {
			if m == move.From {
				c.members[a] = move.To
			}
		}
	}
}

// replaces has {-5 instance} become {generation instance}, which becomes {-6 instance}.
func replaces(generation, instance int) []Move {
	return []Move{{InstanceKey{generation, instance}, InstanceKey{-6, instance}}, {InstanceKey{-5, instance}, InstanceKey{generation, instance}}}
}

func TestInstanceIsReplacedInItsGeneration(t *testing.T) {
	for _, to := range []Split{{Generation: 1}, half, {Generation: 2, Beside: 1, Share: 5000}} {
		for instance := range 2 {
			t.Run(fmt.Sprintf("%+v, %d", to, instance), func(t *testing.T) {
				c, shares := newCrowd(t, "127.0.0.1", 2, 2), to
				c.steer(to)
				if to.Beside == 0 {
					shares.Beside = 2
				}
				c.serve(InstanceKey{-5, instance})
				c.checkShare(300, shares)
				c.regroup(replaces(1, instance)...)
				c.checkShare(300, shares)
				if got := c.s.Sockets(-6); len(got) != 1 || got[0].InstanceKey != (InstanceKey{-6, instance}) || len(c.s.Addresses(-6)) != 1 {
					t.Errorf("who was replaced listens on %v", got)
				}
				if len(c.s.Sockets(1)) != 2 || len(c.s.Sockets(-5)) != 0 {
					t.Errorf("generation 1 listens on %v", c.s.Sockets(1))
				}
				c.crash(InstanceKey{-6, instance})
				apptest.Must(t, c.s.Retire(InstanceKey{-6, instance}))
				c.checkShare(300, shares)
			})
		}
	}
}

func TestInstanceGoesOutOfServiceAndComesBack(t *testing.T) {
	c := newCrowd(t, "127.0.0.1", 3)
	c.steer(Split{Generation: 1})
	out, in := Move{InstanceKey{1, 1}, InstanceKey{-2, 0}}, Move{InstanceKey{-2, 0}, InstanceKey{1, 1}}
	for range 3 {
		c.regroup(out)
		c.checkShare(300, Split{Generation: 1})
		c.regroup(in)
		c.checkShare(300, Split{Generation: 1})
	}
	swap := []Move{{InstanceKey{1, 0}, InstanceKey{1, 2}}, {InstanceKey{1, 2}, InstanceKey{1, 0}}}
	c.regroup(swap...)
	for a, m := range c.members {
		if got := slices.IndexFunc(c.s.Sockets(1), func(s SteeredSocket) bool { return s.InstanceKey == m && s.Inode == a.inode }); got < 0 {
			t.Errorf("%v has another socket: %v", m, c.s.Sockets(1))
		}
	}
}

// A whole generation can change its number, and the splits that name it are others' then.
func TestGenerationIsMoved(t *testing.T) {
	c := newCrowd(t, "127.0.0.1", 2, 2)
	c.steer(half)
	c.regroup(Move{InstanceKey{1, 0}, InstanceKey{2, 0}}, Move{InstanceKey{1, 1}, InstanceKey{2, 1}}, Move{InstanceKey{2, 0}, InstanceKey{1, 0}}, Move{InstanceKey{2, 1}, InstanceKey{1, 1}})
	c.checkShare(300, half)
	c.steer(Split{Generation: 2})
	c.checkAll(2)
	c.regroup(Move{InstanceKey{2, 0}, InstanceKey{-3, 0}}, Move{InstanceKey{2, 1}, InstanceKey{-3, 1}}, Move{InstanceKey{1, 0}, InstanceKey{2, 0}})
	c.checkAll(2)
	c.steer(Split{Generation: -3})
	c.checkAll(-3)
}

func TestMovesThatCannotBe(t *testing.T) {
	c := newCrowd(t, "127.0.0.1", 2)
	bound := newAppSocket(t, unix.AF_INET)
	if _, err := bound.bind(c.s, InstanceKey{3, 0}, c.at); err != nil {
		t.Fatal(err)
	}
	a, b := InstanceKey{1, 0}, InstanceKey{1, 1}
	for name, moves := range map[string][]Move{
		"onto one that serves":    {{a, b}},
		"onto one that has bound": {{a, InstanceKey{3, 0}}},
		"twice":                   {{a, InstanceKey{5, 0}}, {a, InstanceKey{5, 1}}},
		"two onto one":            {{a, InstanceKey{5, 0}}, {b, InstanceKey{5, 0}}},
	} {
		if err := c.s.Regroup(moves); err == nil || !strings.HasPrefix(err.Error(), "cannot move instance 0 of generation 1: ") && name != "two onto one" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := c.s.Sockets(1); len(got) != 2 {
		t.Errorf("generation 1 listens on %v", got)
	}
	c.regroup(Move{InstanceKey{7, 0}, InstanceKey{8, 0}}, Move{a, a}) // which changes nothing
	c.crash(b)
	c.regroup(Move{a, b}) // which has ended
	c.checkAll(1)
}

// Where nobody else of the generation listens, who has left it goes on, and not one that has not served.
func TestWhoHasLeftGoesOnWhereNobodyElseIs(t *testing.T) {
	s, at := newSteering(t), reservePort(t, "127.0.0.1")
	c := &crowd{t: t, s: s, at: at, members: map[*appSocket]InstanceKey{}}
	c.serve(InstanceKey{-9, 0}) // which gets number 0 in the group
	c.serve(InstanceKey{1, 0})
	c.serve(InstanceKey{2, 0})
	c.steer(Split{Generation: 1})
	c.regroup(Move{InstanceKey{1, 0}, InstanceKey{-6, 0}})
	c.checkAll(-6)
	c.regroup(Move{InstanceKey{-9, 0}, InstanceKey{1, 0}})
	c.checkAll(1)
}

func TestQueuedCountsHandshakesOfWhoHasLeft(t *testing.T) {
	c := newCrowd(t, "127.0.0.1", 1)
	c.steer(Split{Generation: 1})
	fresh := c.serve(InstanceKey{-5, 0})
	for a := range c.members {
		apptest.Must(t, unix.SetsockoptInt(a.fd, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 30))
	}
	begun := connect(t, c.at, 0)
	defer begun.Close()
	checkQueued(t, c.s, 1, 0)
	c.regroup(replaces(1, 0)...)
	checkQueued(t, c.s, -6, 1)
	later := connect(t, c.at, 0)
	defer later.Close()
	checkQueued(t, c.s, -6, 1)
	checkQueued(t, c.s, 1, 0)
	_, err := begun.Write([]byte("x"))
	apptest.Must(t, err)
	if a, fd := accepted(c.socketsOf(-6)...); a == nil {
		t.Error("the connection did not come to the instance that had got its SYN")
	} else {
		unix.Close(fd)
	}
	checkQueued(t, c.s, -6, 0)
	_, err = later.Write([]byte("x"))
	apptest.Must(t, err)
	checkQueued(t, c.s, 1, 1)
	if a, fd := accepted(fresh); a == nil {
		t.Error("the instance that has come has got nothing")
	} else {
		unix.Close(fd)
	}
}

// What waits when an instance is moved is counted, taken and told by its new name.
func TestAllThatIsSaidOfAnInstanceIsRenamed(t *testing.T) {
	c, moved := newCrowd(t, "127.0.0.1", 1, 0, 1), InstanceKey{-4, 3}
	other := reservePort(t, "127.0.0.1")
	bound := newAppSocket(t, unix.AF_INET)
	if _, err := bound.bind(c.s, first, other); err != nil {
		t.Fatal(err)
	}
	port := reservePort(t, "::").Port()
	apptest.Must(t, c.s.probe(port, first))
	waits := connect(t, c.at, 0)
	defer waits.Close()
	checkQueued(t, c.s, 1, 1)
	c.regroup(Move{first, moved})
	checkQueued(t, c.s, -4, 1)
	c.steer(Split{Generation: 3})
	if connected(t, c.at, port, c.sockets()...) != c.socketsOf(-4)[0] {
		t.Error("the probe missed")
	}
	if decision, err := c.s.Bind(moved, newAppSocket(t, unix.AF_INET).fd, other); decision != Conflict {
		t.Errorf("what it has bound: %v, %v", decision, err)
	}
	apptest.Must(t, c.s.Listen(moved, bound.duplicate(), 5))
	if got := c.s.Sockets(-4); len(got) != 2 {
		t.Errorf("it listens on %v", got)
	}
	c.crash(moved)
	checkQueued(t, c.s, -4, 1)
	if awaited, err := c.s.Awaited(-4); !awaited || err != nil {
		t.Errorf("nobody waits for it: %v", err)
	}
	c.regroup(Move{moved, second})
	if awaited, err := c.s.Awaited(2); !awaited || err != nil {
		t.Errorf("nobody waits for it: %v", err)
	}
	if a, fd := accepted(c.restart(second)); a == nil {
		t.Error("who waited was left")
	} else {
		unix.Close(fd)
	}
	apptest.Must(t, unix.Shutdown(bound.fd, unix.SHUT_RDWR))
	c.s.Sockets(2) // sees it
	c.regroup(Move{second, moved})
	if left, err := c.s.Wait(); left.Inode != bound.inode || left.InstanceKey.Generation != -4 {
		t.Errorf("%v has left, %v", left, err)
	}
}

func TestPathGoesToWhoComes(t *testing.T) {
	s, at := newPathSteering(t)
	var serving []*appSocket
	for instance := range 3 {
		serving = append(serving, servePath(t, s, InstanceKey{1, instance}, at))
	}
	waiting := bindPath(t, s, InstanceKey{-5, 0}, at)
	moves := func(moves ...Move) {
		t.Helper()
		apptest.Must(t, s.Regroup(moves))
	}
	checkPath(t, at, serving[2])
	for instance := range 2 {
		fresh := servePath(t, s, InstanceKey{-7, instance}, at)
		checkPath(t, at, serving[2])
		moves(Move{InstanceKey{1, 2}, InstanceKey{-8, 9}}, Move{InstanceKey{-7, instance}, InstanceKey{1, 2}})
		checkPath(t, at, fresh)
		if n, err := s.Queued(-8); err != nil || n == 0 {
			t.Errorf("%d may come, %v", n, err)
		}
		moves(Move{InstanceKey{1, 2}, InstanceKey{-7, instance}}, Move{InstanceKey{-8, 9}, InstanceKey{1, 2}})
		checkPath(t, at, serving[2])
		fresh.close()
		apptest.Must(t, s.Retire(InstanceKey{-7, instance}))
	}
	moves(Move{InstanceKey{1, 2}, InstanceKey{-8, 9}})
	checkPath(t, at, serving[1])
	moves(Move{InstanceKey{1, 0}, InstanceKey{-9, 0}})
	moves(Move{InstanceKey{-9, 0}, InstanceKey{1, 0}}) // an older one
	checkPath(t, at, serving[0])
	moves(Move{InstanceKey{-5, 0}, InstanceKey{1, 2}})
	apptest.Must(t, s.Listen(InstanceKey{1, 2}, waiting.duplicate(), 9))
	checkPath(t, at, waiting)
	if got := s.Sockets(1); len(got) != 3 {
		t.Errorf("generation 1 listens on %v", got)
	}
}

// Who waits where nobody serves is answered by the instance that comes, which shares its socket with nobody from then on.
func TestWhoComesHasTheQueueAlone(t *testing.T) {
	eachQueue(t, func(t *testing.T, q queueOf) {
		q.crash(t, first, q.serve(first))
		q.waiting(t, 3)
		comes := q.serve(second)
		apptest.Must(t, q.s.Regroup([]Move{{second, InstanceKey{1, 1}}}))
		if next := q.serve(InstanceKey{3, 0}); next.inode == comes.inode {
			t.Error("a candidate has its socket as well")
		}
		q.waiting(t, 3)
		checkAnswered(t, 6, comes)
	})
}

// All who share a socket are renamed, and who has left it.
func TestOwnersAreRenamed(t *testing.T) {
	o := ownership{share: share{first, promised}, From: &second, Also: []share{{second, serving}, {InstanceKey{3, 0}, serving}}}
	o.rename(names{first: second, second: InstanceKey{-2, 0}})
	want := []share{{second, promised}, {InstanceKey{-2, 0}, serving}, {InstanceKey{3, 0}, serving}}
	if got := o.shares(); !slices.Equal(got, want) || *o.From != (InstanceKey{-2, 0}) || second != (InstanceKey{2, 0}) {
		t.Errorf("%v, left by %v", got, o.From)
	}
}

// rolling is one instance that accepts, answers with 1, and closes.
type rolling struct {
	*servers
	m InstanceKey
}

func startRolling(t *testing.T, c *crowd, m InstanceKey) *rolling {
	t.Helper()
	v := &servers{generation: 1, sockets: []*appSocket{serve(t, c.s, m, c.at)}}
	v.accepting.Go(func() { v.accept(v.sockets[0].fd) })
	t.Cleanup(v.end)
	return &rolling{v, m}
}

// stop ends it as the supervisor does: once nothing waits for it. Nothing may come afterwards.
func (r *rolling) stop(t *testing.T, c *crowd) {
	t.Helper()
	checkQueued(t, c.s, r.m.Generation, 0)
	r.end()
	for range 20 {
		if _, err := askOnce(c.at); err != nil {
			t.Fatal(err)
		}
	}
	if fd := r.sockets[0].accept(); fd >= 0 {
		t.Fatal("a connection came to an instance that has left, and that had an empty queue")
	}
	r.sockets[0].close()
	apptest.Must(t, c.s.Retire(r.m))
}

// Instances are replaced one by one under load, and no client is lost.
func TestRegroupLosesNoConnection(t *testing.T) {
	c := newCrowd(t, "127.0.0.1")
	serving := map[int]*rolling{}
	for instance := range 3 {
		serving[instance] = startRolling(t, c, InstanceKey{1, instance})
	}
	stop := loadOn(t, c.at)
	for turn := range 60 {
		instance, out := turn%3, InstanceKey{-2 - 2*turn, turn % 3}
		fresh := startRolling(t, c, InstanceKey{-3 - 2*turn, instance})
		old := serving[instance]
		apptest.Must(t, c.s.Regroup([]Move{{old.m, out}, {fresh.m, old.m}}))
		serving[instance], fresh.m, old.m = fresh, old.m, out
		old.stop(t, c)
	}
	if answered := stop(); answered == 0 {
		t.Error("nobody was answered")
	}
	for _, r := range serving {
		r.end()
	}
}

// Clients of a path find it always while instances change places.
func TestRegroupOfPathsLosesNoConnection(t *testing.T) {
	s, at := newPathSteering(t)
	v := &servers{generation: 1}
	for _, m := range []InstanceKey{first, {-5, 0}} {
		a := servePath(t, s, m, at)
		v.accepting.Go(func() { v.accept(a.fd) })
	}
	defer v.end()
	answered := make(chan error, 1)
	go func() {
		for range 1000 {
			if err := askPath(at); err != nil {
				answered <- err
				return
			}
		}
		close(answered)
	}()
	for {
		apptest.Must(t, s.Regroup([]Move{{first, InstanceKey{-5, 0}}, {InstanceKey{-5, 0}, first}}))
		select {
		case err := <-answered:
			apptest.Must(t, err)
			return
		default:
		}
	}
}

func askPath(at string) error {
	conn, err := net.Dial("unix", at)
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = io.ReadFull(conn, make([]byte, 1))
	return err
}

// A successor goes on with the names.
func TestNamesTravel(t *testing.T) {
	c := newCrowd(t, "127.0.0.1", 2)
	c.serve(InstanceKey{-5, 0})
	c.steer(Split{Generation: 1})
	c.regroup(replaces(1, 0)...)
	a := startSuccessor(t, c.s, nil)
	expect(t, a, "sockets -6", "1")
	expect(t, a, "retire -6 1", "<nil>")
	c.checkShare(300, Split{Generation: 1})
	expect(t, a, "cutover -6", "[] <nil>")
	c.checkAll(-6)
}
