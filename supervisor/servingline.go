package supervisor

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/gracerun/grace/supervisor/machine"
)

// served is what the first generation has sockets of its own at. It is the loop's alone to log.
type served struct {
	machine.Event // none: the machine has no use for it
	captured      []string
	log           func(captured []string)
}

// servingLine says once what is served. What is captured is asked for beside the loop, as others may be at the sockets.
type servingLine struct {
	service *service
	asking  sync.WaitGroup
}

func (v *servingLine) hear(_ time.Time, l line) {
	if l.event == eventServing {
		v.asking.Go(func() { v.service.loop.post(served{captured: v.service.captured(l.Generation), log: v.write}) })
	}
}

func (v *servingLine) write(captured []string) {
	s := v.service
	e := s.options.Log.Info()
	if s.socket != nil {
		e = e.Str("name", s.options.Name)
	}
	var held []string
	for _, l := range s.listeners {
		held = append(held, l.Network()+" "+l.Bound())
	}
	if len(held) > 0 {
		e = e.Strs("held", held)
	}
	captured = slices.DeleteFunc(captured, func(a string) bool { return slices.Contains(held, a) })
	if len(captured) > 0 {
		e = e.Strs("captured", captured)
	}
	e.Msg("serving")
}

// captured are the addresses at which a generation has sockets of its own.
func (s *service) captured(generation int) (addresses []string) {
	if s.steering == nil {
		return nil
	}
	for _, place := range s.steering.Places(generation) {
		network := "tcp"
		if _, err := netip.ParseAddrPort(place); err != nil {
			network = "unix"
		}
		addresses = append(addresses, network+" "+place)
	}
	return addresses
}
