package metrics

import (
	"context"
	"runtime"
	"time"

	"github.com/gracerun/grace/supervisor/control"
	dto "github.com/prometheus/client_model/go"
)

// Source gives the status of grace. Its methods may be called by many goroutines at once.
type Source interface {
	// Snapshot is what grace itself knows; it comes at once.
	Snapshot(ctx context.Context) (control.Status, error)
	// Status has what the system had to be asked for too.
	Status(ctx context.Context) (control.Status, error)
}

// The phases that are shown with 0 if there is nothing in them.
var (
	instancePhases   = []string{"starting", "ready", "draining", "killing", "backoff"}
	generationPhases = []string{"candidate", "sharing", "current", "settling", "warm", "emptying", "closing", "draining"}
)

var (
	build       = describe("grace_build_info", "1, for the versions in its labels.", "goversion", "version")
	ready       = describe("grace_ready", "1 if a generation serves and grace is not stopping, else 0.")
	generation  = describe("grace_generation", "Number of the generation that serves; 0 if there is none.")
	instances   = describe("grace_instances", "Instances of the app.", "phase")
	wanted      = describe("grace_instances_wanted", "Instances that there are to be, as of --instances and grace scale.")
	share       = describe("grace_connection_share", "Share of the new connections, from 0 to 1, by the phase of the generation that gets it.", "phase")
	connections = describe("grace_connections", "Connections in flight, by the phase of their generation; absent where they cannot be counted.", "phase")
	accepted    = describe("grace_listener_connections", "Connections in flight, of all generations; absent where they cannot be counted.", "address", "listener")
	queue       = describe("grace_queue_length", "Connections that no instance has accepted yet, of all generations; absent where they cannot be counted.", "address", "listener")
)

// askLimit is for a grace process whose loop does not answer.
const askLimit = 5 * time.Second

// gauges ask when they are asked.
type gauges struct {
	source  Source
	version string
}

// families has only the first gauge if grace does not answer.
func (g *gauges) families(ctx context.Context) []*dto.MetricFamily {
	var all []*dto.MetricFamily
	add := func(d description, values ...*dto.Metric) {
		if len(values) > 0 {
			all = append(all, d.family(dto.MetricType_GAUGE, values))
		}
	}
	add(build, build.gauge(1, runtime.Version(), g.version))
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	s, err := g.source.Status(ctx)
	if err != nil {
		return all
	}
	add(ready, ready.gauge(number(whyNotReady(s) == "")))
	add(generation, generation.gauge(float64(s.Current)))
	add(instances, byPhase(instances, countInstances(s))...)
	add(wanted, wanted.gauge(float64(s.Instances)))
	add(share, byPhase(share, shares(s))...)
	add(connections, byPhase(connections, countConnections(s))...)
	add(accepted, byListener(accepted, s, func(l control.Listener) *int { return l.Connections })...)
	add(queue, byListener(queue, s, func(l control.Listener) *int { return l.Queue })...)
	return all
}

func byPhase[N int | float64](d description, values map[string]N) []*dto.Metric {
	var all []*dto.Metric
	for phase, n := range values {
		all = append(all, d.gauge(float64(n), phase))
	}
	return all
}

func byListener(d description, s control.Status, of func(control.Listener) *int) []*dto.Metric {
	var all []*dto.Metric
	for l, n := range sumByListener(s, of) {
		all = append(all, d.gauge(float64(n), l.Address, l.Name))
	}
	return all
}

func number(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

func countInstances(s control.Status) map[string]int {
	counts := map[string]int{}
	for _, phase := range instancePhases {
		counts[phase] = 0
	}
	for _, g := range s.Generations {
		for _, i := range g.Instances {
			counts[i.Phase]++
		}
	}
	return counts
}

// shares leaves the current generation what no other one gets.
func shares(s control.Status) map[string]float64 {
	parts := map[string]float64{"sharing": 0, "current": 0}
	for _, g := range s.Generations {
		if g.Phase == "sharing" && !g.Batch {
			parts["sharing"] = g.Share
		}
	}
	if s.Current != 0 {
		parts["current"] = 1 - parts["sharing"]
	}
	return parts
}

func countConnections(s control.Status) map[string]int {
	counts := map[string]int{}
	for _, phase := range generationPhases {
		counts[phase] = 0
	}
	for _, g := range s.Generations {
		if g.Connections != nil {
			counts[g.Phase] += *g.Connections
		}
	}
	for _, g := range s.Generations {
		if g.Connections == nil { // a sum without it would be wrong
			delete(counts, g.Phase)
		}
	}
	return counts
}

// listener is what generations have in common.
type listener struct{ Name, Address string }

func sumByListener(s control.Status, of func(control.Listener) *int) map[listener]int {
	sums := map[listener]int{}
	for _, l := range s.Listeners {
		if n := of(l); n != nil {
			sums[listener{l.Name, l.Address}] += *n
		}
	}
	return sums
}

// obstacle says why no client is to be sent here, or nothing.
func whyNotReady(s control.Status) string {
	if s.State == "stopping" {
		return "grace is stopping"
	}
	for _, g := range s.Generations {
		for _, i := range g.Instances {
			if g.Number == s.Current && i.Phase == "ready" {
				return ""
			}
		}
	}
	return "no generation serves"
}
