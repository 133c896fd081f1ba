package steering

import (
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/gracerun/grace/handoff/internal/apptest"
	"golang.org/x/sys/unix"
)

// queueOf is one way to the sockets that wait for a successor.
type queueOf struct {
	s     *Steering
	serve func(InstanceKey) *appSocket // as an instance that is started, and takes what has been left if it can
	bind  func(InstanceKey) *appSocket // the same before it listens; nil for what is given listening
	dial  func() net.Conn
}

func queues(t *testing.T) map[string]func() queueOf {
	return map[string]func() queueOf{
		"captured": func() queueOf {
			s, at := newSteering(t), reservePort(t, "127.0.0.1")
			do := func(capture func(*appSocket, *Steering, InstanceKey, netip.AddrPort)) func(InstanceKey) *appSocket {
				return func(m InstanceKey) *appSocket {
					a := reusing(t)
					capture(a, s, m, at)
					return a
				}
			}
			return queueOf{s, do((*appSocket).capture), do((*appSocket).captureBind), func() net.Conn { return connect(t, at, 0) }}
		},
		"steered": func() queueOf {
			s, l := newSteering(t), reserve(t, "127.0.0.1:0?steer=true")
			at := netip.MustParseAddrPort(l.Bound())
			return queueOf{s, func(m InstanceKey) *appSocket { return own(t, s, m, l) }, nil, func() net.Conn { return connect(t, at, 0) }}
		},
		"unix": func() queueOf {
			s, at := newPathSteering(t)
			do := func(capture func(*testing.T, *Steering, InstanceKey, string) *appSocket) func(InstanceKey) *appSocket {
				return func(m InstanceKey) *appSocket { return capture(t, s, m, at) }
			}
			return queueOf{s, do(capturePath), do(capturePathBind), func() net.Conn {
				conn, err := net.Dial("unix", at)
				apptest.Must(t, err)
				return conn
			}}
		},
	}
}

// capturePath plays the capture of a server that removes what is at its path, binds and listens.
func capturePath(t *testing.T, s *Steering, m InstanceKey, at string) *appSocket {
	t.Helper()
	a := capturePathBind(t, s, m, at)
	apptest.Must(t, s.Listen(m, a.duplicate(), 64))
	return a
}

func capturePathBind(t *testing.T, s *Steering, m InstanceKey, at string) *appSocket {
	t.Helper()
	a := newAppSocket(t, unix.AF_UNIX)
	left, err := s.TakePath(m, a.fd, at)
	apptest.Must(t, err)
	if left < 0 {
		a.close()
		return bindPath(t, s, m, at)
	}
	a.replaceBy(left)
	return a
}

// crash ends an instance as one that is to be started again.
func (q queueOf) crash(t *testing.T, m InstanceKey, a *appSocket) {
	t.Helper()
	a.close()
	apptest.Must(t, q.s.Vacate(m))
}

// waiting makes clients that nobody has accepted.
func (q queueOf) waiting(t *testing.T, clients int) {
	t.Helper()
	for range clients {
		conn := q.dial()
		t.Cleanup(func() { conn.Close() })
	}
}

func checkAnswered(t *testing.T, clients int, sockets ...*appSocket) {
	t.Helper()
	for n := range clients {
		a, fd := accepted(sockets...)
		if a == nil {
			t.Fatalf("%d of %d clients were accepted", n, clients)
		}
		unix.Close(fd)
	}
}

func eachQueue(t *testing.T, do func(*testing.T, queueOf)) {
	for name := range queues(t) {
		t.Run(name, func(t *testing.T) { do(t, queues(t)[name]()) })
	}
}

func TestUpgradeAnswersWhoWaitsForACrashedApp(t *testing.T) {
	eachQueue(t, func(t *testing.T, q queueOf) {
		q.crash(t, first, q.serve(first))
		q.waiting(t, 5)
		next := q.serve(second)
		q.waiting(t, 5)
		kept, err := q.s.Steer(Split{Generation: 2})
		if len(kept) > 0 || err != nil {
			t.Error(kept, err)
		}
		apptest.Must(t, q.s.Retire(first))
		q.waiting(t, 5)
		checkAnswered(t, 15, next)
	})
}

// What a candidate has got goes back when it fails, to the instance that is started again.
func TestFailedUpgradeLeavesWhoWaitsToTheRestart(t *testing.T) {
	for how, fail := range map[string]func(t *testing.T, q queueOf, a *appSocket){
		"ends":   func(t *testing.T, q queueOf, a *appSocket) { q.crash(t, second, a) },
		"closes": func(t *testing.T, q queueOf, a *appSocket) { a.close(); apptest.Must(t, q.s.Forget(a.inode)) },
	} {
		t.Run(how, func(t *testing.T) {
			eachQueue(t, func(t *testing.T, q queueOf) {
				q.crash(t, first, q.serve(first))
				q.waiting(t, 5)
				for range 3 {
					fail(t, q, q.serve(second))
					apptest.Must(t, q.s.Retire(second))
					q.waiting(t, 1)
				}
				checkAnswered(t, 8, q.serve(first))
			})
		})
	}
}

func TestEachInstanceTakesUpTheQueueInItsPlace(t *testing.T) {
	eachQueue(t, func(t *testing.T, q queueOf) {
		const instances = 3
		members := func(generation int) (all []InstanceKey) {
			for instance := range instances {
				all = append(all, InstanceKey{generation, instance})
			}
			return all
		}
		var before, next []*appSocket
		for _, m := range members(1) {
			before = append(before, q.serve(m))
		}
		q.waiting(t, 20)
		for i, m := range members(1) {
			q.crash(t, m, before[i])
		}
		for _, m := range members(2) {
			next = append(next, q.serve(m))
		}
		_, err := q.s.Steer(Split{Generation: 2})
		apptest.Must(t, err)
		for _, m := range members(1) {
			apptest.Must(t, q.s.Retire(m))
		}
		checkAnswered(t, 20, next...)
	})
}

// A generation that lives keeps its clients, and so does the rest of one that has lost an instance.
func TestNobodyTakesTheQueueOfWhoLives(t *testing.T) {
	eachQueue(t, func(t *testing.T, q queueOf) {
		lives := q.serve(InstanceKey{1, 1})
		q.waiting(t, 3)
		crashed := q.serve(first)
		q.crash(t, first, crashed)
		for _, m := range []InstanceKey{second, {2, 1}} {
			if next := q.serve(m); next.inode == lives.inode {
				t.Errorf("%v has the socket of an instance that lives", m)
			}
		}
		q.waiting(t, 3)
		checkAnswered(t, 6, lives)
	})
}

// While nobody serves, a restart and a candidate wait for clients at one queue, so that it does not matter which of them
// fails, nor which came first.
func TestOneQueueForAllWhoStart(t *testing.T) {
	for name, order := range map[string][]InstanceKey{"candidate first": {second, first}, "restart first": {first, second}} {
		for _, fails := range []InstanceKey{first, second} {
			t.Run(fmt.Sprintf("%s, generation %d fails", name, fails.Generation), func(t *testing.T) {
				eachQueue(t, func(t *testing.T, q queueOf) {
					q.crash(t, first, q.serve(first))
					q.waiting(t, 2)
					started := map[InstanceKey]*appSocket{}
					for _, m := range order {
						started[m] = q.serve(m)
						if sockets := q.s.Sockets(m.Generation); len(sockets) != 1 || sockets[0].InstanceKey != m {
							t.Errorf("%v has %v", m, sockets)
						}
					}
					q.waiting(t, 3)
					q.crash(t, fails, started[fails])
					if fails == first {
						_, err := q.s.Steer(Split{Generation: 2})
						apptest.Must(t, err)
					} else {
						q.s.Ready(first)
					}
					apptest.Must(t, q.s.Retire(fails))
					q.waiting(t, 3)
					delete(started, fails)
					for _, a := range started {
						checkAnswered(t, 8, a)
					}
				})
			})
		}
	}
}

// Once one of them serves, nobody else gets its queue.
func TestWhoIsReadyHasTheQueueAlone(t *testing.T) {
	eachQueue(t, func(t *testing.T, q queueOf) {
		q.crash(t, first, q.serve(first))
		again := q.serve(first)
		q.s.Ready(first)
		if next := q.serve(second); next.inode == again.inode {
			t.Error("a candidate has the socket of an instance that is ready")
		}
	})
}

// An upgrade that is undone leaves what its successor had got to the instances that are started again.
func TestUndoneUpgradeGivesBackWhoWaits(t *testing.T) {
	eachQueue(t, func(t *testing.T, q queueOf) {
		lives, crashed := q.serve(InstanceKey{1, 1}), q.serve(first)
		q.crash(t, first, crashed)
		next := q.serve(second)
		_, err := q.s.Steer(Split{Generation: 2})
		apptest.Must(t, err)
		q.waiting(t, 4)
		_, err = q.s.Steer(Split{Generation: 1})
		apptest.Must(t, err)
		q.crash(t, second, next)
		again := q.serve(first)
		apptest.Must(t, q.s.Retire(second))
		q.waiting(t, 4)
		checkAnswered(t, 8, again, lives)
	})
}

func TestPlacesOfACrashedGenerationStayItsOwn(t *testing.T) {
	eachQueue(t, func(t *testing.T, q queueOf) {
		q.crash(t, first, q.serve(first))
		q.serve(second)
		if before, now := q.s.Places(1), q.s.Places(2); len(before) != 1 || fmt.Sprint(before) != fmt.Sprint(now) {
			t.Errorf("generation 1 has %v, generation 2 %v", before, now)
		}
	})
}

// Who waits is awaited as long as nobody is to accept him, and only by the generation that he has come to.
func TestAwaitedTellsWhoIsWaitedFor(t *testing.T) {
	eachQueue(t, func(t *testing.T, q queueOf) {
		check := func(when string, want bool) {
			t.Helper()
			got, err := q.s.Awaited(1)
			apptest.Must(t, err)
			other, err := q.s.Awaited(2)
			apptest.Must(t, err)
			if got != want || other {
				t.Errorf("%s: generation 1 is awaited: %v, and generation 2: %v", when, got, other)
			}
		}
		a, b := q.serve(first), q.serve(second)
		defer b.close()
		conn := q.dial()
		defer conn.Close()
		check("the app lives", false)
		q.crash(t, first, a)
		check("it has crashed", true)
		_, err := q.s.Steer(Split{Generation: 2})
		apptest.Must(t, err)
		check("it was replaced", true)
		again := q.serve(first)
		check("it is started again", false)
		if again.inode != a.inode {
			t.Errorf("it has socket %d, and not %d", again.inode, a.inode)
		}
		got, fd := accepted(again)
		if got == nil {
			t.Fatal("it accepts nobody")
		}
		apptest.Must(t, unix.Close(fd))
		q.crash(t, first, again)
		check("nobody waits", false)
	})
}
