package takeover

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/gracerun/grace/cmd/load"
	"github.com/gracerun/grace/internal/freeport"
	"github.com/gracerun/grace/test/harness"
)

const supervisordConf = `[supervisord]
nodaemon=true
logfile=/dev/null
logfile_maxbytes=0
pidfile=DIR/supervisord.pid

[program:web]
command=APP -addr ADDR
autorestart=true
`

// supervisord would start the server again. Where that is accepted, what it starts finds the address in use.
func TestServersOfSupervisordAreTakenOverByForce(t *testing.T) {
	harness.Need(t, "supervisord")
	addr, dir := freeport.Address(t), harness.WorldFolder(t)
	conf := harness.Write(t, dir, "supervisord.conf", strings.NewReplacer("DIR", dir, "ADDR", addr, "APP", harness.AppBinary()).Replace(supervisordConf), 0o644)
	supervisor := harness.StartProcess(t, exec.Command("supervisord", "-c", conf))
	harness.AwaitListener(t, "tcp", addr)
	harness.UnderLoad(t, load.Config{Addr: addr, Clients: harness.EveryKind}, func() {
		s := start(t, "captured", addr)
		if s.Wait() == 0 || !strings.Contains(s.Output(), "supervisord will start it again: use --takeover=force, and run `supervisorctl stop web`") {
			t.Error("grace does not refuse it")
		}
		s = harness.Start(t, append([]string{"--takeover=force", "--settle", "50ms", "--empty", "0s"}, ways["captured"](addr)...)...)
		s.AwaitReady(1)
		s.AwaitGeneration("generation ended", 0)
		supervisor.AwaitText("exited: web (exit status 1; not expected)")
		t.Cleanup(func() {
			supervisor.Stop()
			s.Stop()
		})
	})
}
