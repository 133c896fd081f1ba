package steering

import (
	"net"
	"testing"

	"github.com/gracerun/grace/handoff/internal/apptest"
)

// Clients wait at the addresses of an app that was stopped: who binds there first answers them. Where nobody does, the address is given up.
func TestReservedAddresses(t *testing.T) {
	before, at := newSteering(t), reservePort(t, "127.0.0.1")
	a, beside := reusing(t), reusing(t)
	a.capture(before, first, at)
	beside.capture(before, InstanceKey{1, 1}, at)
	left := []int{a.duplicate(), beside.duplicate()}
	a.close()
	beside.close()
	apptest.Must(t, before.Close())
	reserved := InstanceKey{0, -1}
	s := newSteering(t)
	apptest.Must(t, s.Reserve(reserved, left))
	const clients = 5
	for range clients {
		conn := connect(t, at, 0)
		t.Cleanup(func() { conn.Close() })
	}
	taker, later := reusing(t), reusing(t)
	taker.capture(s, first, at)
	later.capture(s, InstanceKey{1, 1}, at)
	apptest.Must(t, s.Retire(reserved))
	checkAnswered(t, clients, taker)
	if got := connected(t, at, 0, taker, later); got == nil {
		t.Error("a new client is not answered")
	}
}

func TestReservedAddressThatNobodyBindsIsGivenUp(t *testing.T) {
	before, at := newSteering(t), reservePort(t, "127.0.0.1")
	a := reusing(t)
	a.capture(before, first, at)
	left := []int{a.duplicate()}
	a.close()
	apptest.Must(t, before.Close())
	s, reserved := newSteering(t), InstanceKey{0, -1}
	apptest.Must(t, s.Reserve(reserved, left))
	apptest.Must(t, s.Retire(reserved))
	if conn, err := net.Dial("tcp", at.String()); err == nil {
		t.Error("the address is still open")
		conn.Close()
	}
}
