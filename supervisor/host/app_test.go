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
	a := &Apps{Options: Options{Policy: machine.Policy{DrainTimeout: 90 * time.Second, Watchdog: time.Second}}}
	got := a.variables(&App{start: machine.Start{Generation: 4, Slot: 2}, notify: socket})
	want := []string{
		"NOTIFY_SOCKET=" + socket.Path(), "GRACE_GENERATION=4", "GRACE_INSTANCE=2", "GRACE_KILL_AFTER=1m30s",
		"WATCHDOG_USEC=1000000",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
