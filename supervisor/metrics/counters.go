package metrics

import (
	"time"

	"github.com/gracerun/grace/supervisor/control"
	"github.com/prometheus/client_golang/prometheus"
)

// Counters are what has happened since grace was started. They may be used by many goroutines at once.
type Counters struct {
	upgrades                 *prometheus.CounterVec
	upgrade, drain           prometheus.Histogram
	crashes, restarts, kills prometheus.Counter
	farewells                *prometheus.CounterVec
	replacements, scalings   *prometheus.CounterVec
}

// outcomes are the results that an upgrade can have. Each is there from the beginning, as nothing can be said of the rate of
// what appears with its first occurrence.
var outcomes = []control.Outcome{control.Upgraded, control.Failed, control.Undone, control.Refused, control.Superseded}

// NewCounters are all zero.
func NewCounters() *Counters {
	c := &Counters{
		upgrades: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "grace_upgrades_total", Help: "Upgrades, by result.",
		}, []string{"result"}),
		upgrade: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "grace_upgrade_duration_seconds", Help: "Duration of successful upgrades, from the request to the result.",
			Buckets: []float64{.05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		}),
		drain: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "grace_drain_duration_seconds", Help: "Duration of drains, from the stop signal to the end of a replaced generation.",
			Buckets: []float64{.05, .25, 1, 5, 10, 30, 60, 300},
		}),
		crashes:  counter("grace_crashes_total", "Instances that served and then ended without being told to."),
		restarts: counter("grace_restarts_total", "Instances that were restarted."),
		kills:    counter("grace_kills_total", "Instances that were killed because they did not end in time."),
		farewells: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "grace_farewell_connections_total", Help: "Connections that were open when their generation was replaced or stopped, by how they ended; only with --farewell.",
		}, []string{"result"}),
	}
	c.replacements = results("grace_replacements_total", "Instances that a fresh one was to replace (--max-memory, --live, --max-age), by result.", replacementResults)
	c.scalings = results("grace_scalings_total", "Changes of the number of instances, by result.", scalingResults)
	for _, result := range farewellResults {
		c.farewells.WithLabelValues(result)
	}
	for _, o := range outcomes {
		c.upgrades.WithLabelValues(string(o))
	}
	return c
}

// results is a counter that has each result from the beginning.
func results(name, help string, all []string) *prometheus.CounterVec {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{"result"})
	for _, result := range all {
		c.WithLabelValues(result)
	}
	return c
}

func counter(name, help string) prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
}

func (c *Counters) collectors() []prometheus.Collector {
	return []prometheus.Collector{c.upgrades, c.upgrade, c.drain, c.crashes, c.restarts, c.kills, c.farewells, c.replacements, c.scalings}
}

// Upgrade counts an upgrade that is over. How long it took says something only if it succeeded.
func (c *Counters) Upgrade(o control.Outcome, took time.Duration) {
	c.upgrades.WithLabelValues(string(o)).Inc()
	if o == control.Upgraded {
		c.upgrade.Observe(took.Seconds())
	}
}

// farewellResults are how a connection can end: its client has left, its last request was relayed, it was silent until it
// was closed, or the app has cut it.
var farewellResults = []string{"left", "relayed", "expired", "cut"}

// Farewell counts connections that have ended, by the results of farewellResults.
func (c *Counters) Farewell(result string, connections int) {
	c.farewells.WithLabelValues(result).Add(float64(connections))
}

// Drain counts a drain that is over.
func (c *Counters) Drain(took time.Duration) { c.drain.Observe(took.Seconds()) }

// Crash counts an instance that ended by itself.
func (c *Counters) Crash() { c.crashes.Inc() }

// Restart counts an instance that was started again.
func (c *Counters) Restart() { c.restarts.Inc() }

// Kill counts an instance that did not end in time.
func (c *Counters) Kill() { c.kills.Inc() }

var (
	replacementResults = []string{"replaced", "failed"}
	scalingResults     = []string{"scaled", "failed", "refused"}
)

// Replacement counts an instance that was to be replaced, by the results of replacementResults.
func (c *Counters) Replacement(result string) { c.replacements.WithLabelValues(result).Inc() }

// Scaling counts another number of instances that was asked for, by the results of scalingResults.
func (c *Counters) Scaling(result string) { c.scalings.WithLabelValues(result).Inc() }
