package host

import (
	"strings"
	"testing"

	"github.com/gracerun/grace/handoff"
)

func TestPolicyFollowsFromTheSockets(t *testing.T) {
	address := []handoff.Address{{Network: "tcp", Addr: ":8080"}}
	steer := []handoff.Address{{Network: "tcp", Addr: ":8080", Steer: true}}
	for name, c := range map[string]struct {
		options                 Options
		held, shared, noUpgrade bool
	}{
		"captured":  {Options{Capture: CaptureAuto}, false, false, false},
		"held":      {Options{Capture: CaptureAuto, Listen: address}, true, true, false},
		"only held": {Options{Capture: CaptureOff, Listen: address}, true, true, false},
		"steered":   {Options{Capture: CaptureAuto, Listen: steer}, true, false, false},
		"neither":   {Options{Capture: CaptureOff}, false, false, true},
	} {
		o, err := c.options.Settled()
		if err != nil {
			t.Fatal(err)
		}
		p := o.Policy
		if p.Held != c.held || p.Shared != c.shared || strings.Contains(p.NoUpgrade, "--listen") != c.noUpgrade {
			t.Errorf("%s: %+v", name, p)
		}
	}
}
