package steering

import "time"

// Split is where new connections go.
type Split struct {
	Generation int  // the selected one
	Beside     int  // 0: no other
	Share      int  // of Beside, in hundredths of a percent (0 to 10000)
	ByClient   bool // a client's address decides, so that it stays with one of them; else by chance
}

// whole is what Share is a part of.
const whole = 10000

// Steer makes the generation the selected one everywhere, and gives the other one its share of the new connections of each
// TCP address: when it returns, each new connection goes where the split says, in one step per address. It is also the way
// back. ByClient goes by the client's IPv4 address, or by the /64 of its IPv6 address; a client of the other generation
// stays with it while its share grows. A unix path leads to one socket, and stays with the selected generation.
//
// Where one of the two has no live socket, the other one has all, until that listens again. Where neither has one, the
// address stays with the generation that it has, and is returned. After an error some addresses may have been steered:
// steer to one generation again.
func (s *Steering) Steer(to Split) (kept []string, err error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for _, p := range s.places() {
		at, found := to.at(p.list())
		switch {
		case found:
			p.choose(at)
			p.list().settle()
		case len(p.list().Members) > 0:
			kept = append(kept, p.String())
		}
	}
	return kept, s.apply()
}

// at is what becomes of the split at one place, and false if neither generation listens there. What only the other one has
// goes to that; where the selected one is to come back, the split is kept for then.
func (to Split) at(l *memberList) (Split, bool) {
	beside, both := to.Beside != 0 && l.has(to.Beside), to.normal()
	switch {
	case l.has(to.Generation), beside && both.Beside != 0 && l.concerns(to.Generation):
		return both, true
	case beside:
		return Split{Generation: to.Beside}, true
	}
	return Split{}, false
}

// normal names no other generation that gets nothing.
func (to Split) normal() Split {
	if to.Beside == 0 || to.Beside == to.Generation || to.Share <= 0 {
		return Split{Generation: to.Generation}
	}
	return to
}

// gets tells whether new connections are for the generation.
func (to Split) gets(generation int) bool {
	return generation == to.Generation || to.Beside != 0 && generation == to.Beside
}

func (l *memberList) split() Split { return Split{l.Selected, l.Beside, l.Share, l.ByClient} }

// gets tells whether new connections are for the generation.
func (l *memberList) gets(generation int) bool { return l.split().gets(generation) }

// steer tells whether a generation that got connections before gets none any more.
func (l *memberList) steer(to Split) bool {
	replaced := !to.gets(l.Selected) || l.Beside != 0 && !to.gets(l.Beside)
	l.Selected, l.Beside, l.Share, l.ByClient = to.Generation, to.Beside, to.Share, to.ByClient
	if replaced {
		l.Replaced = time.Now()
	}
	return replaced
}
