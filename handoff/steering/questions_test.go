package steering

import (
	"net/netip"
	"os"
	"runtime"
	"testing"

	"github.com/gracerun/grace/handoff/internal/apptest"
	"github.com/gracerun/grace/handoff/sockdiag"
	"github.com/gracerun/grace/handoff/socket"
)

// Each question has the kernel go through all sockets of the machine, and each look into /proc through all descriptors
// of a process. Their buffers tell how many there were: a listener more is none more.
func TestQuestionsDoNotGrowWithListeners(t *testing.T) {
	const n = 40
	const reply = 32 << 10 // what is read of the kernel's answer at once
	s, err := NewSteering(nil)
	apptest.Must(t, err)
	defer s.Close()
	var addresses []netip.AddrPort
	var listeners []*socket.Listener
	asks := map[string]func() error{
		"bind":        func() error { serve(t, s, InstanceKey{2, 0}, reservePort(t, "127.0.0.1")); return nil },
		"queued":      func() error { _, err := s.Queued(1); return err },
		"queues":      func() error { s.Queues(1); return nil },
		"open":        func() error { _, err := sockdiag.OpenAt([]int{os.Getpid()}, addresses); return err },
		"queued each": func() error { _, err := sockdiag.QueuedEach(listeners); return err },
		"connections": func() error { _, err := sockdiag.ConnectionsEach([]int{os.Getpid()}, listeners); return err },
	}
	allocated := make(map[string][2]int)
	for round := range 2 {
		for range n {
			at := reservePort(t, "127.0.0.1")
			serve(t, s, InstanceKey{1, 0}, at)
			addresses, listeners = append(addresses, at), append(listeners, hold(t, "127.0.0.1:0"))
		}
		_, err := s.Steer(Split{Generation: 2}) // those of generation 1 are asked about: they may get what has begun
		apptest.Must(t, err)
		for name, ask := range asks {
			bytes := allocated[name]
			bytes[round] = allocatedBy(t, ask)
			allocated[name] = bytes
		}
	}
	for name, bytes := range allocated {
		if each := (bytes[1] - bytes[0]) / n; each > reply/4 {
			t.Errorf("%s: %d bytes more for each listener more, of %v", name, each, bytes)
		}
	}
}

func allocatedBy(t *testing.T, ask func() error) int {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	apptest.Must(t, ask())
	runtime.ReadMemStats(&after)
	return int(after.TotalAlloc - before.TotalAlloc)
}

// A bind asks for who has a socket only where one is in its way.
func TestBindLooksForNobodyWhereNothingIsInTheWay(t *testing.T) {
	looks := 0
	s, err := NewSteering(func(InstanceKey, uint64) bool { looks++; return true })
	apptest.Must(t, err)
	defer s.Close()
	for range 30 {
		at := reservePort(t, "127.0.0.1")
		serve(t, s, InstanceKey{1, 0}, at)
		serve(t, s, InstanceKey{2, 0}, at)
	}
	if looks > 0 {
		t.Errorf("%d looks at 60 binds", looks)
	}
}

// An instance may bind while the sockets are given up: what was let go is found no more.
func TestBindAfterItsAddressWasLetGo(t *testing.T) {
	s, at := newSteering(t), reservePort(t, "127.0.0.1")
	serve(t, s, InstanceKey{1, 0}, at).close()
	apptest.Must(t, s.TurnAway())
	apptest.Must(t, s.LetGo(1))
	serve(t, s, InstanceKey{2, 0}, at)
}
