package supervisor

import (
	"fmt"
	"time"

	"github.com/gracerun/grace/handoff/socket"
	"github.com/gracerun/grace/supervisor/control"
	"github.com/gracerun/grace/supervisor/machine"
	"github.com/gracerun/grace/supervisor/metrics"
	"github.com/rs/zerolog"
)

// privateMode is for a unix path that no mode was given for.
const privateMode = 0o600

// bindMetrics gives nil if no metrics are wanted.
func bindMetrics(o Options) (*socket.Listener, error) {
	if o.Metrics == nil {
		return nil, nil
	}
	address := *o.Metrics
	if address.Network == "unix" && address.Mode == 0 {
		address.Mode = privateMode
	}
	l, err := socket.Bind(address)
	if err != nil {
		return nil, fmt.Errorf("--metrics: %w", err)
	}
	return l, nil
}

// exporter counts what happens, and tells who asks at the address of --metrics; nil without one.
type exporter struct {
	counters *metrics.Counters
	server   *metrics.Server
}

// openExporter leaves the socket to its caller.
func openExporter(socket *socket.Listener, l *loop, d *controlBackend, log zerolog.Logger) (*exporter, error) {
	if socket == nil {
		return nil, nil
	}
	counters := metrics.NewCounters()
	server, err := metrics.Serve(socket.FD(), d.version, counters, d)
	if err != nil {
		return nil, err
	}
	e := &exporter{counters, server}
	l.audience = append([]audience{e}, l.audience...) // who reads a line of the log finds counted what it says
	log.Info().Str("network", socket.Network()).Str("address", socket.Bound()).Msg("serving metrics")
	return e, nil
}

func (e *exporter) hear(_ time.Time, l line) {
	if l.event == eventFailed && l.Generation == 1 {
		return // the first one is no upgrade
	}
	if ends, ok := l.Why.(machine.ConnectionEnds); ok {
		e.countEnds(ends)
	}
	e.countInstances(l.Fact)
	switch l.event {
	case eventUpgraded, eventFailed, eventUndone, eventRefused, eventSuperseded:
		e.counters.Upgrade(control.Outcome(l.event), l.Took)
	case eventDrained:
		e.counters.Drain(l.Took)
	case eventCrashed:
		e.counters.Crash()
	case eventRestarting:
		e.counters.Restart()
	case eventKilled:
		e.counters.Kill()
	}
}

func (e *exporter) countInstances(f machine.Fact) {
	switch f {
	case machine.InstanceReplaced:
		e.counters.Replacement("replaced")
	case machine.ReplacementFailed:
		e.counters.Replacement("failed")
	case machine.Scaled:
		e.counters.Scaling("scaled")
	case machine.ScalingFailed:
		e.counters.Scaling("failed")
	case machine.ScalingRefused:
		e.counters.Scaling("refused")
	}
}

func (e *exporter) countEnds(ends machine.ConnectionEnds) {
	for result, connections := range map[string]int{"left": ends.Left, "relayed": ends.Relayed, "expired": ends.Expired, "cut": ends.Cut} {
		e.counters.Farewell(result, connections)
	}
}

func (e *exporter) close() error {
	if e == nil {
		return nil
	}
	return e.server.Close()
}
