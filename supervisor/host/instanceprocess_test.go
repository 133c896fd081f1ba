package host

import (
	"slices"
	"testing"
	"time"

	"github.com/gracerun/grace/childproc"
	"github.com/gracerun/grace/supervisor/machine"
)

func TestVariablesOfAnInstance(t *testing.T) {
	socket, err := childproc.OpenNotify(t.TempDir(), -1, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	for killAfter, p := range map[string]machine.Policy{
		"1m30s": {},
		"22.5s": {Steered: true},
		"1m25s": {Steered: true, Shared: true},
	} {
		p.DrainTimeout, p.Watchdog = 90*time.Second, time.Second
		checkVariables(t, p, socket, killAfter)
	}
}

func checkVariables(t *testing.T, p machine.Policy, socket *childproc.NotifySocket, killAfter string) {
	t.Helper()
	a := &Host{Options: Options{Policy: p}}
	got := a.variables(&InstanceProcess{start: machine.Start{Of: 4, Slot: 2}, notify: socket})
	want := []string{
		"NOTIFY_SOCKET=" + socket.Path(), "GRACE_GENERATION=4", "GRACE_INSTANCE=2", "GRACE_KILL_AFTER=" + killAfter,
		"WATCHDOG_USEC=1000000",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
