package steering

import (
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/gracerun/grace/handoff/internal/apptest"
	"github.com/gracerun/grace/handoff/socket"
)

// Where the limit of processes is reached Go cannot make a thread, and ends the program: what waits for an app must not
// hold one.
func TestWaitsHoldNoThread(t *testing.T) {
	listener, err := socket.Bind(socket.Address{Network: "tcp", Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	watch, err := socket.NewHangupWatch([]*socket.Listener{listener})
	if err != nil {
		t.Fatal(err)
	}
	steering, err := NewSteering(nil)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 2)
	go func() { _, err := watch.Wait(); ended <- err }()
	go func() { _, err := steering.Wait(); ended <- err }()
	for _, function := range []string{"(*HangupWatch).Wait", "(*Steering).Wait"} {
		if state := apptest.AwaitState(t, function); !strings.HasPrefix(state, "IO wait") {
			t.Errorf("%s holds a thread: its goroutine is in state %q", function, state)
		}
	}
	if err := errors.Join(watch.Close(), steering.Close()); err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := <-ended; !errors.Is(err, net.ErrClosed) {
			t.Errorf("a closed watch gave %v", err)
		}
	}
}
