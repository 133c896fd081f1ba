package supervisor

import (
	"time"

	"github.com/gracerun/grace/supervisor/host"
	"github.com/gracerun/grace/supervisor/machine"
)

// openTakeover: what grace has not started has another parent, and its sockets are looked for with everybody.
func (s *service) openTakeover() {
	if s.options.Takeover == host.TakeoverNone {
		return
	}
	s.notOurChildren = true
	s.takeover = host.NewTakeover(s.options.Options, s.reaper, s.steering, s.runtime)
}

// resumeTakeover goes on where the grace process before was killed: what the app has not come to bind may be found again.
func (s *service) resumeTakeover(m machine.Snapshot) {
	if !m.Unserved || s.steering == nil {
		return
	}
	s.openTakeover()
	if s.takeover == nil {
		return
	}
	for _, g := range m.Generations {
		for _, i := range g.Instances {
			if g.Number == machine.Foreign {
				s.takeover.Skip(i.Slot)
			}
		}
	}
	s.apps.Takeover = s.takeover
}

// beginTakeover has the first generation replace who was found at the addresses that grace holds.
func (s *service) beginTakeover() {
	if s.takeover == nil {
		return
	}
	begin := s.loop.begin
	s.loop.begin = func() []machine.Action {
		actions := begin()
		for _, found := range s.takeover.Found() {
			actions = append(actions, s.loop.machine.Step(time.Now(), found)...)
		}
		return actions
	}
}
