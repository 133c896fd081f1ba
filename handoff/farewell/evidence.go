package farewell

import (
	"maps"
	"net/netip"
	"slices"
	"sync"
)

// evidence is at which addresses HTTP/1 was seen to be spoken.
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

// Spoken are the addresses at which HTTP/1 was seen to be spoken.
func (a *Announcer) Spoken() []netip.AddrPort {
	a.spoken.mu.Lock()
	defer a.spoken.mu.Unlock()
	return slices.Collect(maps.Keys(a.spoken.at))
}

// Learn remembers what answers have told since the last look.
func (f *Farewell) Learn() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.learnAll()
}

// Believe is for what another Announcer has seen.
func (a *Announcer) Believe(spoken []netip.AddrPort) {
	for _, at := range spoken {
		a.spoken.add(at)
	}
}

func (e *evidence) has(at netip.AddrPort) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.at[at]
}
