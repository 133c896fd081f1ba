package supervisor

import (
	"time"

	"github.com/gracerun/grace/supervisor/machine"
	"github.com/rs/zerolog"
)

// journal writes the machine's reports: one line for each change of state.
type journal struct{ log zerolog.Logger }

var levels = [...]zerolog.Level{
	machine.Debug:   zerolog.DebugLevel,
	machine.Info:    zerolog.InfoLevel,
	machine.Warn:    zerolog.WarnLevel,
	machine.Failure: zerolog.ErrorLevel,
}

func (j *journal) Hear(_ time.Time, r machine.Report) {
	e := j.log.WithLevel(levels[r.Level])
	if r.Generation != 0 {
		e = e.Int("generation", r.Generation)
	}
	if r.Instance != 0 {
		e = e.Int("instance", r.Instance)
	}
	if r.PID != 0 {
		e = e.Int("pid", r.PID)
	}
	if r.Took != 0 {
		e = e.Float64("took_ms", milliseconds(r.Took))
	}
	if r.Within != 0 {
		e = e.Float64("within_ms", milliseconds(r.Within))
	}
	if r.Why != "" {
		e = e.Str("why", r.Why)
	}
	e.Msg(r.Text)
}

// milliseconds has one digit after the point.
func milliseconds(d time.Duration) float64 {
	return float64(d.Round(100*time.Microsecond).Microseconds()) / 1000
}
