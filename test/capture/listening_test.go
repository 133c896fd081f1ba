package capture

import (
	"net"
	"testing"

	"github.com/gracerun/grace/internal/freeport"
	"github.com/gracerun/grace/test/harness"
)

// An app that is started again gets the socket of the one before, which listens. It is ready when it accepts, whether it has called listen
// once more or not.
func TestAppNeedNotListenOnWhatListens(t *testing.T) {
	addr := freeport.Address(t)
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	path := harness.WorldFolder(t) + "/socket"
	program := harness.Testdata(t, "servers/listening.py")
	for network, at := range map[string]struct {
		addr    string
		command []string
	}{
		"tcp":  {addr, []string{"--", "python3", program, port}},
		"unix": {path, []string{"--capture-unix", path, "--", "python3", program, path}},
	} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			s := harness.Start(t, append([]string{"--settle", "50ms", "--empty", "0s"}, at.command...)...)
			s.AwaitReady(1)
			for number := 1; number <= 3; number++ {
				s.AwaitInstance("instance ready", number)
				clients := queue(t, network, at.addr, 3)
				checkAllAnswered(t, clients)
				killInstances(s, s.AwaitInstance("instance started", number).PID)
				checkAllAnswered(t, queue(t, network, at.addr, 3))
			}
			s.AwaitInstance("instance ready", 4)
			s.Upgrade(2)
			checkAllAnswered(t, queue(t, network, at.addr, 3))
			s.Stop()
		})
	}
}
