package farewell

import (
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

const (
	// leaseTime is how long input stays held back after the process that holds it has died or stands still.
	leaseTime    = 2 * time.Second
	leaseRenewed = 200 * time.Millisecond
)

// leases keeps the lease on held connections as long as anybody needs it.
type leases struct {
	lease *ebpf.Map
	mu    sync.Mutex
	needs int
	stop  chan struct{}
	gone  sync.WaitGroup
}

func (l *leases) begin() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.renew(); err != nil {
		return err
	}
	if l.needs++; l.needs > 1 {
		return nil
	}
	stop := make(chan struct{})
	l.stop = stop
	l.gone.Go(func() { l.keepUp(stop) })
	return nil
}

// release ends the lease with the last who needs it.
func (l *leases) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.needs--; l.needs == 0 {
		l.lapse()
	}
}

func (l *leases) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.needs > 0 {
		l.needs = 0
		l.lapse()
	}
}

// lapse lets input through at once.
func (l *leases) lapse() {
	close(l.stop)
	l.gone.Wait()
	_ = l.until(0)
}

func (l *leases) keepUp(stop <-chan struct{}) {
	tick := time.NewTicker(leaseRenewed)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			_ = l.renew() // one that fails lets input through, which is no harm
		case <-stop:
			return
		}
	}
}

func (l *leases) renew() error {
	return l.until(monotonic() + uint64(leaseTime))
}

// monotonic is the time as the programs see it.
func monotonic() uint64 {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) // it fails for no clock that there is
	return uint64(now.Nano())
}

func (l *leases) until(end uint64) error { return l.lease.Put(uint32(0), end) }
