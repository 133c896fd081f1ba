package steering

import (
	"testing"

	"github.com/gracerun/grace/handoff/internal/apptest"
)

// Who waits in a socket that a candidate has got from an instance that crashed is answered by the restart of that instance where the candidate
// fails, also if grace is killed in between.
func TestQueueGoesBackAfterAKill(t *testing.T) {
	s, at := newSteering(t), reservePort(t, "127.0.0.1")
	candidate, again := reusing(t), reusing(t)
	leaveVacant(t, s, at)
	const clients = 5
	for range clients {
		conn := connect(t, at, 0)
		t.Cleanup(func() { conn.Close() })
	}
	candidate.capture(s, second, at)
	state, fds := killed(t, s, nil, []*appSocket{candidate})
	next, err := TakeOverSteering(state, fds, nil)
	apptest.Must(t, err)
	t.Cleanup(func() { next.Close() })
	candidate.close()
	apptest.Must(t, next.Retire(second))
	again.capture(next, first, at)
	checkAnswered(t, clients, again)
}

// A socket that a restart and a candidate share stays the one's where the other one fails, also if grace is killed in between.
func TestSharedSocketIsSharedAfterAKill(t *testing.T) {
	for name, fails := range map[string]InstanceKey{"the candidate fails": second, "the restart fails": first} {
		t.Run(name, func(t *testing.T) {
			s, at := newSteering(t), reservePort(t, "127.0.0.1")
			leaveVacant(t, s, at)
			have := map[InstanceKey]*appSocket{first: reusing(t), second: reusing(t)}
			have[first].capture(s, first, at)
			have[second].capture(s, second, at)
			if have[first].inode != have[second].inode {
				t.Fatal("they do not share a socket")
			}
			state, fds := killed(t, s, nil, []*appSocket{have[first]})
			next, err := TakeOverSteering(state, fds, nil)
			apptest.Must(t, err)
			t.Cleanup(func() { next.Close() })
			have[fails].close()
			delete(have, fails)
			apptest.Must(t, next.Retire(fails))
			for _, left := range have {
				if got := connected(t, at, 0, left); got != left {
					t.Error("a client is not answered")
				}
			}
		})
	}
}
