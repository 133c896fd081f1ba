package supervisor

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/gracerun/grace/handoff/socket"
	"github.com/gracerun/grace/supervisor/control"
	"github.com/gracerun/grace/supervisor/host"
	"github.com/gracerun/grace/supervisor/machine"
	"github.com/rs/zerolog"
)

// A server that cannot be opened must not leave a control socket that nobody answers at.
func TestServeThatCannotBeginLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("RUNTIME_DIRECTORY", dir)
	address, err := socket.ParseAddress("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &service{options: Options{Options: host.Options{Policy: testPolicy()}, Name: "web", Log: zerolog.Nop()}, first: &host.LaunchSpec{}}
	if s.metrics, err = socket.Bind(address); err != nil {
		t.Fatal(err)
	}
	s.metrics.Close() // a socket for metrics that cannot be served
	if s.socket, err = control.Open("web"); err != nil {
		t.Fatal(err)
	}
	s.assemble()
	defer s.hooks.Close()
	if status, err := s.serve(func() { t.Error("it begins") }); status != machine.StatusFailure || err == nil {
		t.Errorf("status %d: %v", status, err)
	}
	if err := s.close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "web.sock")); !os.IsNotExist(err) {
		t.Errorf("the socket is still there: %v", err)
	}
}
