package farewell

import (
	"net/netip"
	"sync"
)

// evidence is at which addresses apps were seen to speak HTTP/1.
type evidence struct {
	mu sync.Mutex
	at map[netip.AddrPort]bool
}

func (e *evidence) add(at netip.AddrPort) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.at == nil {
		e.at = make(map[netip.AddrPort]bool)
	}
	e.at[at] = true
}

func (e *evidence) has(at netip.AddrPort) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.at[at]
}
