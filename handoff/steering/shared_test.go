package steering

import (
	"testing"

	"github.com/gracerun/grace/handoff/internal/apptest"
	"golang.org/x/sys/unix"
)

// A restart that has taken up a queue, and does not listen yet, serves nobody: a candidate that shares the queue with it,
// and listens, gets no client that another instance of the selected generation would answer.
func TestWhoHasOnlyBoundLeadsNobodyToACandidate(t *testing.T) {
	eachBound(t, func(t *testing.T, q queueOf) {
		crashed, beside := InstanceKey{1, 1}, first
		later, a := q.serve(beside), q.serve(crashed)
		q.crash(t, beside, later)
		q.crash(t, crashed, a)
		q.bind(crashed)
		q.serve(InstanceKey{2, 1}) // shares it
		serves := q.serve(beside)
		const clients = 20 // all come to the right one by chance once in 2^20 runs
		q.waiting(t, clients)
		checkAnswered(t, clients, serves)
	})
}

// A candidate that has bound only is none to lead clients to, whoever listens on the socket that it shares.
func TestWhoHasOnlyBoundServesNobody(t *testing.T) {
	eachBound(t, func(t *testing.T, q queueOf) {
		q.crash(t, first, q.serve(first))
		q.serve(first)
		candidate := q.bind(second)
		if sockets := q.s.Sockets(2); len(sockets) > 0 {
			t.Errorf("generation 2 listens on %v", sockets)
		}
		if kept, err := q.s.Steer(Split{Generation: 2}); len(kept) != 1 || err != nil {
			t.Errorf("kept %v, %v", kept, err)
		}
		apptest.Must(t, q.s.Listen(second, candidate.duplicate(), 64))
		if sockets := q.s.Sockets(1); len(sockets) != 1 {
			t.Errorf("generation 1 listens on %v", sockets)
		}
		if kept, err := q.s.Steer(Split{Generation: 2}); len(kept) > 0 || err != nil {
			t.Errorf("kept %v, %v", kept, err)
		}
	})
}

// Of what the selected generation listens on, clients are led to what a candidate does not answer, if there is any.
func TestClientsAreLedToWhatNobodyShares(t *testing.T) {
	eachQueue(t, func(t *testing.T, q queueOf) {
		first, crashed := q.serve(InstanceKey{1, 0}), q.serve(InstanceKey{1, 1})
		q.crash(t, InstanceKey{1, 0}, first)
		q.crash(t, InstanceKey{1, 1}, crashed)
		q.serve(InstanceKey{1, 1})
		q.serve(InstanceKey{2, 1}) // shares it
		alone := q.serve(InstanceKey{1, 0})
		const clients = 20
		q.waiting(t, clients)
		checkAnswered(t, clients, alone)
	})
}

// A socket that several have is in the way of none who has closed it, also after it was shut down and listens again.
func TestWhoHasClosedASharedSocketBindsAgain(t *testing.T) {
	s, at := newSteering(t), reservePort(t, "127.0.0.1")
	leaveVacant(t, s, at)
	keeps, leaves, again := reusing(t), reusing(t), reusing(t)
	keeps.capture(s, InstanceKey{2, 0}, at)
	leaves.captureBind(s, InstanceKey{2, 1}, at)
	if leaves.inode != keeps.inode {
		t.Fatal("they do not share a socket")
	}
	leaves.close()
	apptest.Must(t, unix.Shutdown(keeps.fd, unix.SHUT_RDWR))
	apptest.Must(t, s.Listen(InstanceKey{2, 0}, keeps.duplicate(), 64))
	again.capture(s, InstanceKey{2, 1}, at)
}

// Whoever of several had a socket that was shut down may listen on it again, also when another of them has ended; and all that
// do are known.
func TestSharedSocketListensAgainForAll(t *testing.T) {
	s, at := newSteering(t), reservePort(t, "127.0.0.1")
	leaveVacant(t, s, at)
	members := []InstanceKey{{2, 0}, {2, 1}, {3, 0}}
	var sharing []*appSocket
	for _, m := range members {
		a := reusing(t)
		a.capture(s, m, at)
		sharing = append(sharing, a)
	}
	apptest.Must(t, unix.Shutdown(sharing[0].fd, unix.SHUT_RDWR))
	sharing[2].close()
	apptest.Must(t, s.Retire(members[2]))
	for i, m := range members[:2] {
		if sharing[i].inode != sharing[2].inode {
			t.Fatal("they do not share a socket")
		}
		apptest.Must(t, s.Listen(m, sharing[i].duplicate(), 64))
	}
	if sockets := s.Sockets(2); len(sockets) != 2 {
		t.Errorf("generation 2 listens on %v", sockets)
	}
}

func eachBound(t *testing.T, do func(*testing.T, queueOf)) {
	eachQueue(t, func(t *testing.T, q queueOf) {
		if q.bind != nil { // or it is given listening
			do(t, q)
		}
	})
}
