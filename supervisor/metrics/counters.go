package metrics

import (
	"time"

	"github.com/gracerun/grace/supervisor/control"
	dto "github.com/prometheus/client_model/go"
)

// Counters are what has happened since grace was started. They may be used by many goroutines at once.
type Counters struct {
	upgrades, farewells, replacements, scalings *counter
	crashes, restarts, kills                    *counter
	upgrade, drain                              *histogram
}

// The results that each counter can have.
var (
	outcomes = []string{string(control.Upgraded), string(control.Failed), string(control.Undone), string(control.Refused), string(control.Superseded)}
	// farewellResults are how a connection can end: its client has left, its last request was relayed, it was silent until it
	// was closed, or the app has cut it.
	farewellResults    = []string{"left", "relayed", "expired", "cut"}
	replacementResults = []string{"replaced", "failed"}
	scalingResults     = []string{"scaled", "failed", "refused"}
)

// NewCounters are all zero.
func NewCounters() *Counters {
	return &Counters{
		upgrades: newCounter("grace_upgrades_total", "Upgrades, by result.", outcomes...),
		upgrade: newHistogram("grace_upgrade_duration_seconds", "Duration of successful upgrades, from the request to the result.",
			.05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60),
		drain: newHistogram("grace_drain_duration_seconds", "Duration of drains, from the stop signal to the end of a replaced generation.",
			.05, .25, 1, 5, 10, 30, 60, 300),
		crashes:  newCounter("grace_crashes_total", "Instances that served and then ended without being told to."),
		restarts: newCounter("grace_restarts_total", "Instances that were restarted."),
		kills:    newCounter("grace_kills_total", "Instances that were killed because they did not end in time."),
		farewells: newCounter("grace_farewell_connections_total",
			"Connections that were open when their generation was replaced or stopped, by how they ended; only with --farewell.", farewellResults...),
		replacements: newCounter("grace_replacements_total",
			"Instances that a fresh one was to replace (--max-memory, --live, --max-age), by result.", replacementResults...),
		scalings: newCounter("grace_scalings_total", "Changes of the number of instances, by result.", scalingResults...),
	}
}

func (c *Counters) families() []*dto.MetricFamily {
	families := []*dto.MetricFamily{c.upgrade.family(), c.drain.family()}
	for _, counter := range []*counter{c.upgrades, c.crashes, c.restarts, c.kills, c.farewells, c.replacements, c.scalings} {
		families = append(families, counter.family())
	}
	return families
}

// Upgrade counts an upgrade that is over. How long it took says something only if it succeeded.
func (c *Counters) Upgrade(o control.Outcome, took time.Duration) {
	c.upgrades.add(string(o), 1)
	if o == control.Upgraded {
		c.upgrade.observe(took)
	}
}

// Farewell counts connections that have ended, by the results of farewellResults.
func (c *Counters) Farewell(result string, connections int) { c.farewells.add(result, connections) }

// Drain counts a drain that is over.
func (c *Counters) Drain(took time.Duration) { c.drain.observe(took) }

// Crash counts an instance that ended by itself.
func (c *Counters) Crash() { c.crashes.add("", 1) }

// Restart counts an instance that was started again.
func (c *Counters) Restart() { c.restarts.add("", 1) }

// Kill counts an instance that did not end in time.
func (c *Counters) Kill() { c.kills.add("", 1) }

// Replacement counts an instance that was to be replaced, by the results of replacementResults.
func (c *Counters) Replacement(result string) { c.replacements.add(result, 1) }

// Scaling counts another number of instances that was asked for, by the results of scalingResults.
func (c *Counters) Scaling(result string) { c.scalings.add(result, 1) }
