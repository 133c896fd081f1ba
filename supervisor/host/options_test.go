package host

import (
	"testing"

	"github.com/gracerun/grace/handoff/socket"
	"github.com/gracerun/grace/supervisor/machine"
)

func TestPolicyFollowsFromTheSockets(t *testing.T) {
	address := []socket.Address{{Network: "tcp", Addr: ":8080"}}
	steer := []socket.Address{{Network: "tcp", Addr: ":8080", Steer: true}}
	for name, c := range map[string]struct {
		options      Options
		held, shared bool
		noUpgrade    machine.Reason
	}{
		"captured":  {Options{Capture: CaptureAuto}, false, false, nil},
		"held":      {Options{Capture: CaptureAuto, Listen: address}, true, true, nil},
		"only held": {Options{Capture: CaptureOff, Listen: address}, true, true, nil},
		"steered":   {Options{Capture: CaptureAuto, Listen: steer}, true, false, nil},
		"neither":   {Options{Capture: CaptureOff}, false, false, machine.NoSockets},
	} {
		o, err := c.options.Settled()
		if err != nil {
			t.Fatal(err)
		}
		p := o.Policy
		if p.Held != c.held || p.Shared != c.shared || p.NoUpgrade != c.noUpgrade {
			t.Errorf("%s: %+v", name, p)
		}
	}
}
