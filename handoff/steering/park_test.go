package steering

import (
	"testing"

	"github.com/gracerun/grace/handoff/internal/apptest"
	"github.com/gracerun/grace/handoff/sibling"
	"golang.org/x/sys/unix"
)

// parked has the only instance of generation 1 taken out of service, and its place kept open.
func parked(t *testing.T) (c *crowd, old *appSocket) {
	t.Helper()
	c = newCrowd(t, "127.0.0.1", 1)
	c.steer(Split{Generation: 1})
	old = c.socketsOf(1)[0]
	return c, old
}

func (c *crowd) park() {
	c.t.Helper()
	c.regroup(Move{InstanceKey{1, 0}, InstanceKey{-5, 0}})
	apptest.Must(c.t, c.s.Park(InstanceKey{1, 0}))
}

// Who connects meanwhile waits for whoever comes: the next generation, or the old one again.
func TestClientsWaitWhereNobodyServes(t *testing.T) {
	for name, next := range map[string]InstanceKey{"the next generation": {2, 0}, "the old one again": {1, 0}} {
		t.Run(name, func(t *testing.T) {
			c, old := parked(t)
			c.park()
			const clients = 5
			for range clients {
				conn := connect(t, c.at, 0)
				defer conn.Close()
			}
			if fd := old.accept(); fd >= 0 {
				t.Fatal("a connection came to who was taken out of service")
			}
			apptest.Must(t, c.s.Retire(InstanceKey{-5, 0}))
			old.close()
			a := c.restart(next)
			if next.Generation != 1 {
				c.steer(Split{Generation: next.Generation})
			}
			for n := range clients {
				fd := a.accept()
				if fd < 0 {
					t.Fatalf("%d of %d clients were accepted", n, clients)
				}
				unix.Close(fd)
			}
			c.checkAll(next.Generation)
		})
	}
}

// Where another instance of the generation serves, or a socket waits already, there is no need for one.
func TestParkOnlyWhereNobodyServes(t *testing.T) {
	c := newCrowd(t, "127.0.0.1", 2)
	c.steer(Split{Generation: 1})
	sockets := func() int { return len(c.s.sorted()[0].Members) }
	before := sockets()
	c.park()
	if got := sockets(); got != before {
		t.Errorf("there are %d sockets, and were %d", got, before)
	}
	c.checkAll(1)
	c.crash(InstanceKey{1, 1})
	apptest.Must(t, c.s.Park(InstanceKey{1, 0}))
	if got := sockets(); got != before {
		t.Errorf("beside one that was left there are %d sockets, and were %d", got, before)
	}
}

// Connections inherit what the app has set on its listener.
func TestParkedSocketIsLikeTheOldOne(t *testing.T) {
	c, old := parked(t)
	type option struct{ level, name, value int }
	set := []option{
		{unix.IPPROTO_IP, unix.IP_TOS, 0x10},
		{unix.SOL_SOCKET, unix.SO_PRIORITY, 5}, // another one than IP_TOS implies
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{unix.SOL_SOCKET, unix.SO_SNDBUF, 1 << 16},
		{unix.SOL_SOCKET, unix.SO_RCVBUF, 1 << 15},
		{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
		{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 77},
		{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 7},
		{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 3},
		{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 12345},
		{unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, 4096},
		{unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 1},
	}
	for i, o := range set {
		apptest.Must(t, unix.SetsockoptInt(old.fd, o.level, o.name, o.value))
		var err error
		set[i].value, err = unix.GetsockoptInt(old.fd, o.level, o.name) // the kernel rounds some
		apptest.Must(t, err)
	}
	apptest.Must(t, unix.Listen(old.fd, 33))
	c.park()
	for _, member := range c.s.sorted()[0].Members {
		if member.State != vacant {
			continue
		}
		for _, o := range set {
			if got, err := unix.GetsockoptInt(member.FD, o.level, o.name); err != nil || got != o.value {
				t.Errorf("option %d of level %d is %d, %v, and not %d", o.name, o.level, got, err, o.value)
			}
		}
		if got := sibling.Backlog(member.FD); got != 33 {
			t.Errorf("%d clients can wait, and not 33", got)
		}
		return
	}
	t.Error("there is no socket in which clients wait")
}

func TestAllOfAGenerationRetire(t *testing.T) {
	c := newCrowd(t, "127.0.0.1", 2, 2)
	bound := newAppSocket(t, unix.AF_INET)
	if _, err := bound.bind(c.s, InstanceKey{1, 7}, reservePort(t, "127.0.0.1")); err != nil {
		t.Fatal(err)
	}
	c.steer(Split{Generation: 2})
	apptest.Must(t, c.s.RetireAll(1))
	if left := c.s.Sockets(1); len(left) > 0 {
		t.Errorf("generation 1 listens on %v", left)
	}
	if c.s.Awaits(bound.inode) {
		t.Error("one that has only bound is waited for")
	}
	c.checkAll(2)
	c.serve(InstanceKey{1, 0}) // the number can be had again
}

// A parked socket that nobody takes ends with its generation.
func TestParkedSocketRetires(t *testing.T) {
	c, old := parked(t)
	c.park()
	c.serve(InstanceKey{2, 0})
	c.steer(Split{Generation: 2})
	apptest.Must(t, c.s.RetireAll(1))
	apptest.Must(t, c.s.RetireAll(-5))
	old.close()
	c.serve(InstanceKey{2, 1}) // sockets are closed where that moves none that is the only one
	c.checkAll(2)
	if members := c.s.sorted()[0].Members; len(members) != 2 {
		t.Errorf("%d sockets are left", len(members))
	}
}
