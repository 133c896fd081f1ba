package machine

import (
	"slices"
	"time"
)

// RestartLimit is how many restarts there may be within a time; the zero one is none.
type RestartLimit struct {
	Restarts int
	Within   time.Duration
}

// exhausted reports whether one more restart would be one too many. An upgrade may bring the version that needs none, so
// it is waited for.
func (m *Machine) exhausted(i *instance) bool {
	limit := m.policy.RestartLimit
	if limit.Restarts == 0 || i.exit.Shortage || m.candidate != nil || m.pending != nil {
		return false
	}
	m.forgetRestarts()
	return len(m.restartedAt) >= limit.Restarts
}

// noteRestart is for restarts that count: not for those that began with a start which failed by no fault of the app's.
func (m *Machine) noteRestart(i *instance) {
	if m.policy.RestartLimit.Restarts > 0 && !i.exit.Shortage {
		m.forgetRestarts()
		m.restartedAt = append(m.restartedAt, m.at)
	}
}

func (m *Machine) forgetRestarts() {
	m.restartedAt = slices.DeleteFunc(m.restartedAt, func(at time.Time) bool { return m.at.Sub(at) >= m.policy.RestartLimit.Within })
}

// giveUp ends grace with the status of an instance that is restarted too often.
func (m *Machine) giveUp(i *instance) {
	m.status = i.generation.Status
	m.say(Report{Fact: RestartsExhausted, Generation: i.generation.Number, Why: TooManyRestarts{m.policy.RestartLimit}})
	m.stop()
}
