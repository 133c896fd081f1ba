package doctor

import "github.com/gracerun/grace/handoff/farewell"

// leaving tries what can be tried without clients. duplicated is why grace may not have the connections of a test app.
func (e *examination) leaving(duplicated error) Finding {
	f := Finding{Mechanism: "farewell", State: OK, Means: "with --farewell clients close kept-alive HTTP/1 connections before the app does"}
	var late error
	announcer, err := farewell.Open()
	if err == nil {
		late = announcer.Parks()
		err = announcer.Close()
	}
	switch {
	case err != nil:
		f.Do = e.environment.announcing() + "; package drain lets a Go app do without"
	case duplicated != nil:
		err, f.Do = duplicated, e.tracing()
	case late != nil:
		f.State, f.Do = Limited, "nothing, if 200 ms matter to nobody; otherwise --listen 'ADDR?steer=true', or no --listen"
		f.Means += "; who connects to a listener that generations share, in the milliseconds before a stop signal, gets its first answer 200 ms later: " + late.Error()
		return f
	default:
		return f
	}
	f.State, f.Means = Limited, "an app that closes kept-alive connections when it ends may lose a request on each of them: "+err.Error()
	return f
}
