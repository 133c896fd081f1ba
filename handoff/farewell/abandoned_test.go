package farewell

import (
	"io"
	"os"
	"testing"

	"github.com/gracerun/grace/handoff/internal/apptest"
)

// What a process has held that was killed comes through as soon as another one says so.
func TestAbandonedInputIsReleased(t *testing.T) {
	speaks, silent := newRoad(t, "127.0.0.1").speaking(t)
	f := speaks.announce(t)
	speaks.speak(t)
	mustHold(t, f, Counts{Busy: 1, Silent: 1, Held: 1})
	_, err := io.WriteString(silent.client, get)
	apptest.Must(t, err)
	silent.awaitDrop(t)
	apptest.Must(t, ReleaseAbandoned([]int{os.Getpid()}))
	mustRead(t, silent.app, get) // while the lease goes on
	apptest.Must(t, f.Release())
}
