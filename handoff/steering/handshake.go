package steering

import (
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/gracerun/grace/handoff/sockdiag"
)

// handshakeTime is how long a handshake that began before a cutover is waited for: two lost packets, which are sent
// again after 1 and 2 seconds. A handshake belongs to the socket that got its SYN: its ACK goes there even if that comes
// after a cutover.
const handshakeTime = 3500 * time.Millisecond

// pending counts the handshakes that may belong to a generation which gets no connections any more: those that were going on at
// the first call after the cutover. The groups are those that it has been replaced in. Those without any are not asked for again: the kernel goes
// through all of its sockets, those in TIME_WAIT too.
func pending(groups []*group) (map[*group]int, error) {
	recent := slices.DeleteFunc(slices.Clone(groups), func(g *group) bool {
		return time.Since(g.Replaced) > handshakeTime || g.Counted && len(g.Begun) == 0
	})
	var addresses []netip.AddrPort
	for _, g := range recent {
		addresses = append(addresses, g.Key.At)
	}
	going, err := sockdiag.Handshakes(addresses)
	if err != nil {
		return nil, err
	}
	counts := make(map[*group]int, len(recent))
	for _, g := range recent {
		counts[g] = g.pending(going[g.Key.At])
	}
	return counts, nil
}

func (g *group) pending(going map[sockdiag.Handshake]bool) int {
	if !g.Counted {
		g.Begun, g.Counted = slices.Collect(maps.Keys(going)), true
	}
	g.Begun = slices.DeleteFunc(g.Begun, func(h sockdiag.Handshake) bool { return !going[h] })
	return len(g.Begun)
}

// queueLengths are what is asked of the kernel at most once to count what waits for a generation.
type queueLengths struct {
	unix       func() (map[string]int, error) // lengths by name
	handshakes func() (map[*group]int, error) // that may still come into its queues where it gets nothing new
}

func (s *Steering) queueLengths(generation int) *queueLengths {
	replaced := slices.DeleteFunc(s.sorted(), func(g *group) bool { return g.gets(generation) && !g.away })
	return &queueLengths{
		unix:       sync.OnceValues(sockdiag.QueuedUnix),
		handshakes: sync.OnceValues(func() (map[*group]int, error) { return pending(replaced) }),
	}
}
