package supervisor

import (
	"errors"
	"time"

	"github.com/gracerun/grace/handoff/farewell"
)

// allowFarewell finds out in a moment whether grace has the rights.
func (s *service) allowFarewell() {
	if s.options.Policy.Farewell == 0 {
		return
	}
	if err := farewell.Supported(); err != nil {
		s.options.Policy.Farewell = 0
		s.options.Log.Info().Str("why", err.Error()).Msg("clients are not asked to close kept-alive connections before the app does")
	}
}

// farewellLoader has the kernel ready before the first upgrade, and not before the app serves.
type farewellLoader struct{ service *service }

func (f farewellLoader) hear(_ time.Time, l line) {
	if l.event == eventServing && f.service.options.Policy.Farewell > 0 {
		go f.load()
	}
}

func (f farewellLoader) load() {
	if _, err := f.service.apps.Farewells.Load(); err != nil && !errors.Is(err, farewell.ErrEnded) {
		f.service.apps.ReportError("cannot ask clients to close kept-alive connections", err)
	}
}
