package host

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/gracerun/grace/childproc"
	"github.com/gracerun/grace/handoff/steering"
	"github.com/gracerun/grace/internal/freeport"
	"github.com/gracerun/grace/supervisor/machine"
)

// Whatever captured apps do with their sockets, in an order that the printed seed gives, their calls are answered and
// none of them loses its capture.
func TestWhateverCapturedAppsDo(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	s, err := steering.NewSteering(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	a := capturing(t, s, func(ev machine.Event) {
		if notice, ok := ev.(machine.Noticed); ok && notice.Text == "the app's sockets are no longer captured" {
			t.Error(notice.Why)
		}
	})
	port := freeport.Address(t)[len("127.0.0.1:"):]
	orders := []string{"bind %d " + port, "bind %d " + port, "listen %d", "listen %d", "shutdown %d", "close %d", "accept %d"}
	for generation := 1; generation <= 4; generation++ {
		m := steering.InstanceKey{Generation: generation}
		c := startCaptured(t, a, m)
		var sockets []int
		for range 100 {
			if len(sockets) == 0 || random.IntN(10) == 0 {
				fd, _ := c.do("socket")
				sockets = append(sockets, fd)
			}
			fd := sockets[max(0, len(sockets)-1-random.IntN(2))] // a late one, with which something was done already
			c.do(orders[random.IntN(len(orders))], fd)
			if random.IntN(10) == 0 {
				if _, err := s.Steer(steering.Split{Generation: generation}); err != nil {
					t.Error(err)
				}
			}
		}
		c.end()
		if err := s.Vacate(m); err != nil {
			t.Error(err)
		}
	}
}

func TestWhatPassesIsNoRefusalToCapture(t *testing.T) {
	for _, c := range []struct {
		err  error
		want bool
	}{
		{&childproc.StartError{Step: "seccomp", Errno: syscall.EPERM}, true},
		{&childproc.StartError{Step: "seccomp", Errno: syscall.EBUSY}, true},
		{&childproc.StartError{Step: "seccomp", Errno: syscall.ENOMEM}, false},
		{&childproc.StartError{Step: "seccomp", Errno: syscall.EMFILE}, false},
		{&childproc.StartError{Step: "exec", Errno: syscall.EPERM}, false},
		{fmt.Errorf("around: %w", &childproc.StartError{Step: "seccomp", Errno: syscall.EINVAL}), true},
		{errors.New("it ended"), false},
	} {
		if got := refused(c.err); got != c.want {
			t.Errorf("%v: %v", c.err, got)
		}
	}
}
