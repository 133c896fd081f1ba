package steering

import (
	"testing"

	"github.com/gracerun/grace/handoff/internal/apptest"
	"github.com/gracerun/grace/handoff/socket"
)

// hold binds an address until the end of the test.
func hold(t *testing.T, written string) *socket.Listener {
	t.Helper()
	return apptest.Hold(t, written, socket.ParseAddress, socket.Bind)
}
