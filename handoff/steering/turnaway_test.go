package steering

import (
	"errors"
	"fmt"
	"net"
	"os"
	"testing"
	"time"

	"github.com/gracerun/grace/handoff/internal/apptest"
	"golang.org/x/sys/unix"
)

// dialLate connects to what may have turned everybody away, and gives the error.
func dialLate(network, addr string) <-chan error {
	result := make(chan error, 1)
	go func() {
		conn, err := net.DialTimeout(network, addr, 2*apptest.Patience)
		if err == nil {
			conn.Close()
		}
		result <- err
	}()
	return result
}

// Who waits in a queue stays there, and nobody comes to it.
func TestTurnedAwayClientsAreRefusedWhenTheSocketsClose(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1", "0.0.0.0", "::"} {
		t.Run(host, func(t *testing.T) {
			s, at := newSteering(t), reservePort(t, host)
			old, current := serve(t, s, InstanceKey{1, 0}, at), serve(t, s, InstanceKey{2, 0}, at)
			_, err := s.Steer(Split{Generation: 2})
			apptest.Must(t, err)
			waiting := connect(t, at, 0)
			defer waiting.Close()
			apptest.Must(t, s.TurnAway())
			late := dialLate("tcp", at.String())
			if a, fd := accepted(current, old); a != current {
				t.Errorf("who waited is with %v", a)
			} else {
				unix.Close(fd)
			}
			awaitQueued(t, s, 2, 0)
			late2 := serve(t, s, InstanceKey{2, 1}, at) // an instance that was about to start
			apptest.Must(t, s.LetGo(2))
			if addresses := s.Addresses(2); len(addresses) != 1 || addresses[0] != at {
				t.Errorf("the addresses of what was let go: %v", addresses)
			}
			for _, a := range []*appSocket{old, current, late2} {
				if fd := a.accept(); fd >= 0 {
					t.Error("somebody came after everybody was turned away")
				}
				a.close()
			}
			apptest.Must(t, s.Retire(InstanceKey{1, 0}))
			if err := <-late; !errors.Is(err, unix.ECONNREFUSED) {
				t.Errorf("who came late: %v", err)
			}
		})
	}
}

// awaitQueued: what has begun may still come for some seconds.
func awaitQueued(t *testing.T, s *Steering, generation, want int) {
	t.Helper()
	last := -1
	for deadline := time.Now().Add(apptest.Patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		n, err := s.Queued(generation)
		apptest.Must(t, err)
		if last = n; n == want {
			return
		}
	}
	t.Errorf("generation %d has %d in its queues, want %d", generation, last, want)
}

func TestTurnedAwayPathIsRemoved(t *testing.T) {
	s, at := newPathSteering(t)
	a := servePath(t, s, InstanceKey{1, 0}, at)
	waiting, err := net.Dial("unix", at)
	apptest.Must(t, err)
	defer waiting.Close()
	apptest.Must(t, s.TurnAway())
	if err := <-dialLate("unix", at); !errors.Is(err, unix.ENOENT) {
		t.Errorf("who came late: %v", err)
	}
	if n, err := s.Queued(1); err != nil || n < 1 {
		t.Errorf("%d wait, %v", n, err)
	}
	if fd := a.accept(); fd < 0 {
		t.Error("who waited is gone")
	} else {
		unix.Close(fd)
	}
	awaitQueued(t, s, 1, 0)
	if !s.Keeps(at) {
		t.Error("the app would be told that there is nothing to remove")
	}
	apptest.Must(t, s.Retire(InstanceKey{1, 0}))
}

// What somebody else has put at the path stays.
func TestTurningAwayRemovesNothingOfOthers(t *testing.T) {
	s, at := newPathSteering(t)
	servePath(t, s, InstanceKey{1, 0}, at)
	apptest.Must(t, os.Remove(at))
	apptest.Must(t, os.WriteFile(at, nil, 0o600))
	apptest.Must(t, s.TurnAway())
	if _, err := os.Stat(at); err != nil {
		t.Error(fmt.Errorf("another file is gone: %w", err))
	}
}
