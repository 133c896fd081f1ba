package supervisor

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gracerun/grace/childproc"
	"github.com/gracerun/grace/handoff/socket"
	"github.com/gracerun/grace/supervisor/host"
	"github.com/gracerun/grace/supervisor/machine"
	"github.com/rs/zerolog"
)

// A first generation that fails is no failed upgrade: no old version serves on.
func TestFirstGenerationIsNoUpgrade(t *testing.T) {
	address, err := socket.ParseAddress("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	socket, err := bindMetrics(Options{Metrics: &address})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	l := newLoop(testPolicy(), "nowhere")
	close(l.done) // so nobody waits for what it sees
	e, err := openExporter(socket, l, &controlBackend{loop: l, apps: &host.Host{Reaper: new(childproc.Reaper), Farewells: host.NewFarewells()}}, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	defer e.close()
	e.hear(time.Now(), worded(machine.Report{Fact: machine.FirstFailed, Generation: 1}))
	e.hear(time.Now(), worded(machine.Report{Fact: machine.UpgradeFailed, Generation: 2}))
	response, err := http.Get("http://" + socket.Bound() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil || !strings.Contains(string(text), "grace_upgrades_total{result=\"failed\"} 1\n") {
		t.Errorf("%v: %s", err, text)
	}
}
