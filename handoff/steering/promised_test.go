package steering

import (
	"slices"
	"testing"

	"github.com/gracerun/grace/handoff/internal/apptest"
)

// Who got a socket that listens, and leaves out its own listen, has it when it is seen to accept.
func TestWhoAcceptsNeedNotListen(t *testing.T) {
	s, at := newSteering(t), reservePort(t, "127.0.0.1")
	leaveVacant(t, s, at)
	again := reusing(t)
	again.captureBind(s, first, at)
	if inodes := s.Promised(first); !slices.Equal(inodes, []uint64{again.inode}) {
		t.Errorf("%v are promised, not %d", inodes, again.inode)
	}
	if sockets := s.Sockets(1); len(sockets) > 0 {
		t.Errorf("it is said to listen on %v", sockets)
	}
	apptest.Must(t, s.Accept(second, again.inode)) // to whom it is not promised
	apptest.Must(t, s.Accept(first, again.inode))
	if sockets := s.Sockets(1); len(sockets) != 1 || sockets[0].InstanceKey != first || sockets[0].Inode != again.inode {
		t.Errorf("it listens on %v", sockets)
	}
	if inodes := s.Promised(first); len(inodes) > 0 {
		t.Errorf("%v are promised", inodes)
	}
}
