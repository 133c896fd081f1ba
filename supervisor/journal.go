package supervisor

import (
	"time"

	"github.com/rs/zerolog"
)

// journal writes the machine's reports: one line for each change of state.
type journal struct{ log zerolog.Logger }

var levels = [...]zerolog.Level{
	debug:   zerolog.DebugLevel,
	info:    zerolog.InfoLevel,
	warn:    zerolog.WarnLevel,
	failure: zerolog.ErrorLevel,
}

func (j *journal) hear(_ time.Time, r report) {
	e := j.log.WithLevel(levels[r.level])
	if r.generation != 0 {
		e = e.Int("generation", r.generation)
	}
	if r.instance != 0 {
		e = e.Int("instance", r.instance)
	}
	if r.pid != 0 {
		e = e.Int("pid", r.pid)
	}
	if r.took != 0 {
		e = e.Float64("took_ms", milliseconds(r.took))
	}
	if r.within != 0 {
		e = e.Float64("within_ms", milliseconds(r.within))
	}
	if r.why != "" {
		e = e.Str("why", r.why)
	}
	e.Msg(r.text)
}

// milliseconds has one digit after the point.
func milliseconds(d time.Duration) float64 {
	return float64(d.Round(100*time.Microsecond).Microseconds()) / 1000
}
