package supervisor

import (
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/gracerun/grace/handoff/farewell"
	"github.com/gracerun/grace/supervisor/control"
	"github.com/gracerun/grace/supervisor/host"
)

// examineFarewell begins to find out whether grace has the rights, which takes the kernel half a millisecond.
func (s *service) examineFarewell() {
	s.mayFarewell = sync.OnceValue(farewell.Supported)
	if s.options.Policy.Farewell > 0 {
		go s.mayFarewell()
	}
}

func (s *service) allowFarewell() {
	if s.options.Policy.Farewell == 0 {
		s.farewell.State = farewellOff
		return
	}
	s.farewell = control.Farewell{State: farewellOn, Within: s.options.Policy.Farewell.Seconds(), Keep: s.options.Keep.Seconds()}
	if err := s.mayFarewell(); err != nil {
		s.farewell = control.Farewell{State: farewellUnavailable, Why: err.Error()}
		s.options.Policy.Farewell = 0
		s.options.Log.Info().Str("why", err.Error()).Msg("clients are not asked to close kept-alive connections before the app does")
	}
}

// The states of a farewell.
const (
	farewellOn          = "on"
	farewellLoading     = "loading"     // its programs are not in the kernel yet
	farewellOff         = "off"         // grace was told so
	farewellUnavailable = "unavailable" // grace lacks a right, or the kernel does
)

// farewellMessage counts the connections of the generations that leave.
func farewellMessage(as control.Farewell, farewells *host.Farewells) *control.Farewell {
	if why := farewells.Failure(); why != "" {
		return &control.Farewell{State: farewellUnavailable, Why: why}
	}
	if as.State == farewellOn && !farewells.Loaded() {
		as.State = farewellLoading
	}
	counts := farewells.Counts()
	for _, generation := range slices.Sorted(maps.Keys(counts)) {
		c := counts[generation]
		as.Generations = append(as.Generations, control.Closing{
			Generation: farewells.Named(generation), Left: c.Left, Open: c.Open(), Busy: c.Busy, Silent: c.Silent, Held: c.Held, Kept: c.Kept, Untold: c.Untold,
		})
	}
	return &as
}

// farewellLoader has the kernel ready before the first upgrade, and not before the app serves.
type farewellLoader struct{ service *service }

func (f farewellLoader) hear(_ time.Time, l line) {
	if l.event == eventServing {
		f.begin()
	}
}

// loadAfter keeps 10 ms of work, most of it the kernel's, from the first requests. An upgrade that comes before loads what it needs.
const loadAfter = 50 * time.Millisecond

func (f farewellLoader) begin() {
	if f.service.options.Policy.Farewell > 0 {
		time.AfterFunc(loadAfter, f.load)
	}
}

func (f farewellLoader) load() {
	if _, err := f.service.apps.Farewells.Load(); err != nil && !errors.Is(err, farewell.ErrEnded) {
		f.service.apps.ReportError("cannot ask clients to close kept-alive connections", err)
	}
}
