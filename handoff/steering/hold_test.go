package steering

import (
	"testing"

	"github.com/gracerun/grace/handoff/internal/apptest"
	"github.com/gracerun/grace/handoff/socket"
)

// hold binds an address until the end of the test.
func hold(t *testing.T, written string) *socket.Listener {
	t.Helper()
	a, err := socket.ParseAddress(written)
	apptest.Must(t, err)
	l, err := socket.Bind(a)
	apptest.Must(t, err)
	t.Cleanup(func() { l.Close() })
	return l
}
