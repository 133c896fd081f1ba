package sockdiag

import (
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// Observation is what goes on in the TCP connections that some processes have accepted, as [Look] tells it.
type Observation struct {
	found []observed
	busy  []observed // of those that were, as Traffic has found last
}

// observed is a connection in an Observation.
type observed struct {
	exchange
	name  inetName
	inode uint64
	at    inetPlace // its own address
	descriptor
}

// fewSockets is how many sockets the processes may have to be asked for one by one, which takes about 10 µs for each. A list of
// all connections takes a millisecond or more: the kernel goes through a table that has room for all that the machine may have
// (262,144 buckets are common), and through all sockets in TIME_WAIT.
const fewSockets = 100

// Observe is [Look] for a caller that looks again later.
func Observe(pids []int, addresses []netip.AddrPort) (*Observation, error) {
	if len(addresses) == 0 {
		return &Observation{}, nil
	}
	if few, ok := fewDescriptors(pids, fewSockets); ok {
		if found, err := askFor(few, addresses); err == nil {
			return &Observation{found: found}, nil
		}
	}
	return observeAll(pids, addresses)
}

// observeAll lists the connections of the machine.
func observeAll(pids []int, addresses []netip.AddrPort) (*Observation, error) {
	found := make(map[uint64]observed)
	err := eachAccepted(addresses, 1<<(diagInfo-1), func(_ inetPlace, inode uint64, message []byte) {
		found[inode] = observe(message, nameIn(message))
	})
	if err != nil {
		return nil, err
	}
	// The processes come last: what one accepts meanwhile was in a queue before.
	open, err := openSockets(pids)
	if err != nil {
		return nil, err
	}
	o := &Observation{}
	for inode, c := range found {
		if d, ok := open[inode]; ok {
			c.descriptor = d
			o.found = append(o.found, c)
		}
	}
	return o, nil
}

func observe(message []byte, name inetName) observed {
	s := parseInetSocket(message)
	return observed{exchange: parseExchange(message), name: name, inode: s.inode, at: inetPlace{message[0], s.local, s.port}}
}

// Traffic tells what goes on, and remembers what is busy for StillBusy.
func (o *Observation) Traffic(idle time.Duration) Traffic {
	var t Traffic
	o.busy = nil
	for _, c := range o.found {
		a := c.activity(idle)
		t.add(a)
		if a == working && len(o.busy) < fewSockets {
			o.busy = append(o.busy, c)
		}
	}
	return t
}

// StillBusy tells whether something still goes on in one of the connections that [Observation.Traffic] has found busy. It asks
// the kernel for one socket mostly, however many there are. If it is false, only another Observe can tell.
func (o *Observation) StillBusy(idle time.Duration) bool {
	for len(o.busy) > 0 {
		if o.busy[0].stillBusy(idle) {
			return true
		}
		o.busy = o.busy[1:]
	}
	return false
}

func (c observed) stillBusy(idle time.Duration) bool {
	if inode, ok := c.socket(); !ok || inode != c.inode {
		return false
	}
	fd, err := openDiag()
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	message, err := c.name.ask(fd, make([]byte, diagOneSize))
	return err == nil && isConnection(message, c.inode) && parseExchange(message).activity(idle) == working
}

func (o *Observation) openAt(addresses []netip.AddrPort) []int {
	open := make(map[inetPlace]int)
	for _, c := range o.found {
		open[c.at]++
		open[c.at.anyAddress()]++
	}
	counts := make([]int, len(addresses))
	for i, at := range addresses {
		counts[i] = open[placeOf(at)]
	}
	return counts
}
