package supervisor

import (
	"time"

	"github.com/gracerun/grace/supervisor/host"
	"github.com/gracerun/grace/supervisor/machine"
	"github.com/rs/zerolog"
)

// logSink writes the machine's reports: one line for each change of state.
type logSink struct{ log zerolog.Logger }

func (j *logSink) hear(_ time.Time, l line) {
	e := j.log.WithLevel(l.level)
	if l.Generation != 0 {
		e = e.Int("generation", shown(l.Generation))
	}
	if l.Instance != 0 {
		e = e.Int("instance", l.Instance)
	}
	if l.PID != 0 {
		e = e.Int("pid", l.PID)
	}
	if l.Took != 0 {
		e = e.Float64("took_ms", milliseconds(l.Took))
	}
	if l.Within != 0 {
		e = e.Float64("within_ms", milliseconds(l.Within))
	}
	if l.Share != 0 {
		e = e.Float64("share", shareOf(l.Share))
	}
	if l.Instances != 0 {
		e = e.Int("instances", l.Instances)
	}
	if l.why != "" {
		e = e.Str("why", l.why)
	}
	e.Msg(l.text)
}

// hookRunner has the hooks hear what happens.
type hookRunner struct{ hooks *host.Hooks }

func (h hookRunner) hear(_ time.Time, l line) {
	h.hooks.Run(host.HookFacts{
		Event: string(l.event), Text: l.text, Why: l.why,
		Generation: shown(l.Generation), Instance: l.Instance, PID: l.PID, Took: l.Took, Within: l.Within, Share: shareOf(l.Share), Instances: l.Instances,
	})
}

// shareOf is a part of 1.
func shareOf(s machine.Share) float64 { return float64(s) / float64(machine.Whole) }

// milliseconds has one digit after the point.
func milliseconds(d time.Duration) float64 {
	return float64(d.Round(100*time.Microsecond).Microseconds()) / 1000
}
