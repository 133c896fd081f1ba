package adoption

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/gracerun/grace/cmd/load"
	"github.com/gracerun/grace/internal/freeport"
	"github.com/gracerun/grace/test/harness"
)

// kinds are the ways in which an app gets its sockets.
var kinds = map[string]func(addr string) []string{
	"held": func(addr string) []string {
		return []string{"--listen", "web=" + addr, "--", harness.AppBinary()}
	},
	"captured": func(addr string) []string {
		return []string{"--settle", "50ms", "--empty", "0s", "--", harness.AppBinary(), "-addr", addr}
	},
	"steered": func(addr string) []string {
		return []string{"--settle", "50ms", "--empty", "0s", "--listen", "web=" + addr + "?steer=true", "--", harness.AppBinary()}
	},
}

// app puts flags behind those that the app has.
func app(arguments []string, flags ...string) []string { return append(arguments, flags...) }

// At each of these points of an upgrade grace is killed, and then the upgrade ends as failed or as done: one generation serves.
var points = map[string]struct {
	flags []string // of the app
	until func(d *harness.KilledGrace)
}{
	"before anything": {nil, func(d *harness.KilledGrace) { d.AwaitMessage("upgrade begins") }},
	"it starts":       {[]string{"-delay", "300ms"}, func(d *harness.KilledGrace) { d.AwaitGeneration("instance started", 2) }},
	"it is ready":     {nil, func(d *harness.KilledGrace) { d.AwaitGeneration("generation ready", 2) }},
	"the other one is told to stop": {nil, func(d *harness.KilledGrace) {
		d.Await("generation 1 drains", func(e harness.Entry) bool {
			return e.Generation == 1 && (e.Message == "generation draining" || e.Message == "generation told to stop")
		})
	}},
	"the other one has ended": {nil, func(d *harness.KilledGrace) { d.AwaitGeneration("instance ended", 1) }},
}

func TestKilledDuringAnUpgrade(t *testing.T) {
	for kind, arguments := range kinds {
		for point, p := range points {
			t.Run(kind+", "+point, func(t *testing.T) {
				addr := freeport.Address(t)
				d := harness.StartToKill(t, app(arguments(addr), p.flags...)...)
				d.AwaitReady(1)
				harness.UnderLoad(t, load.Config{Addr: addr, Clients: harness.FewClients}, func() {
					d.Signal(syscall.SIGHUP)
					p.until(d)
					d.Kill()
					d.Again()
					serves := d.AwaitOneGeneration()
					d.Command("upgrade")
					if now := d.AwaitOneGeneration(); now <= serves {
						t.Errorf("generation %d serves after an upgrade of %d", now, serves)
					}
				})
				d.End()
			})
		}
	}
}

func TestKilledGraceIsFollowed(t *testing.T) {
	for kind, arguments := range kinds {
		for _, instances := range []int{1, 4} {
			t.Run(fmt.Sprintf("%s, %d", kind, instances), func(t *testing.T) {
				addr, pidFile := freeport.Address(t), t.TempDir()+"/pid"
				d := harness.StartToKill(t, append([]string{"--instances", fmt.Sprint(instances), "--pid-file", pidFile}, arguments(addr)...)...)
				d.AwaitReady(1)
				fresh := harness.Surroundings(t, d.AwaitMessage("instance ready").PID)
				harness.UnderLoad(t, load.Config{Addr: addr, Clients: harness.EveryKind}, func() {
					for generation := 2; generation <= 4; generation++ {
						d.Kill()
						d.Again()
						if got := strings.TrimSpace(harness.Read(t, pidFile)); got != fmt.Sprint(d.PID()) {
							t.Errorf("the pid file says %s, not %d", got, d.PID())
						}
						d.AwaitStatus("serving, generation " + fmt.Sprint(generation-1))
						d.Command("upgrade")
						d.AwaitGeneration("upgraded", generation)
						d.AwaitGeneration("generation ended", generation-1)
					}
				})
				last := d.Await("an instance", func(e harness.Entry) bool { return e.Message == "instance ready" && e.Generation == 4 }).PID
				if later := harness.Surroundings(t, last); later != fresh {
					t.Errorf("an app was started with\n%s\nand by a grace process that has adopted one with\n%s", fresh, later)
				}
				d.End()
			})
		}
	}
}
