package supervisor

import "github.com/rs/zerolog"

// journal writes the machine's reports: one line for each change of state.
type journal struct{ log zerolog.Logger }

var levels = [...]zerolog.Level{
	debug:   zerolog.DebugLevel,
	info:    zerolog.InfoLevel,
	warn:    zerolog.WarnLevel,
	failure: zerolog.ErrorLevel,
}

func (j *journal) write(r report) {
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
		e = e.Dur("took", r.took)
	}
	if r.within != 0 {
		e = e.Dur("within", r.within)
	}
	if r.why != "" {
		e = e.Str("why", r.why)
	}
	e.Msg(r.text)
}
