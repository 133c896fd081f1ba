package capture

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/gracerun/grace/cmd/load"
	"github.com/gracerun/grace/internal/freeport"
	"github.com/gracerun/grace/test/harness"
)

// orphans are servers whose parent has ended, beside a main process that lives on and does nothing for them.
var orphans = map[string]func(t *testing.T) (s *harness.Grace, addr string){
	"held": func(t *testing.T) (*harness.Grace, string) {
		s := harness.StartScript(t, "(setsid $APP -take fd:3 &)\nexec sleep 1000\n", "--listen", "web=127.0.0.1:0")
		return s, s.Address("web")
	},
	"steered": func(t *testing.T) (*harness.Grace, string) {
		s := harness.StartScript(t, "(setsid $APP -take fd:3 &)\nexec sleep 1000\n", "--listen", "web=127.0.0.1:0?steer=true")
		return s, s.Address("web")
	},
	"captured": func(t *testing.T) (*harness.Grace, string) {
		addr := freeport.Address(t)
		return harness.StartScript(t, "(setsid $APP -addr "+addr+" &)\nexec sleep 1000\n"), addr
	},
	"captured, without an environment": func(t *testing.T) (*harness.Grace, string) {
		addr := freeport.Address(t)
		return harness.StartScript(t, "(env -i setsid $APP -addr "+addr+" &)\nexec sleep 1000\n"), addr
	},
}

func TestOrphanBesideTheMainProcessIsSeenReady(t *testing.T) {
	for name, start := range orphans {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, addr := start(t)
			s.AwaitReady(1)
			harness.UnderLoad(t, load.Config{Addr: addr, Clients: map[load.Kind]int{load.NewConnection: 4}}, func() {
				s.Upgrade(2)
				s.AwaitGeneration("generation ended", 1)
			})
			s.Signal(syscall.SIGTERM)
			s.Ends(0)
		})
	}
}

// Who waits for an answer of an orphan waits for the app, which dies of its stop signal.
func TestConnectionsOfAnOrphanAreWaitedFor(t *testing.T) {
	harness.Need(t, "python3")
	server := harness.Testdata(t, "servers/blunt.py")
	for name, start := range map[string]func(t *testing.T) blunt{
		"captured": func(t *testing.T) blunt {
			addr := freeport.Address(t)
			_, port, _ := strings.Cut(addr, ":")
			return blunt{harness.StartScript(t, "(setsid python3 "+server+" "+port+" &)\nexec sleep 1000\n", "--drain-timeout", "10m"), "tcp", addr}
		},
		"captured unix socket": func(t *testing.T) blunt {
			path := filepath.Join(harness.WorldFolder(t), "socket")
			return blunt{harness.StartScript(t, "(setsid python3 "+server+" "+path+" &)\nexec sleep 1000\n", "--drain-timeout", "10m", "--capture-unix", path), "unix", path}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, file := start(t), filepath.Join(t.TempDir(), "go")
			b.AwaitReady(1)
			conn := b.request(file)
			b.Signal(syscall.SIGTERM)
			b.AwaitGeneration("draining (1 connection in flight)", 1)
			harness.Touch(t, file)
			if err := answered(conn); err != nil {
				t.Error(err)
			}
			conn.Close()
			b.Ends(0)
		})
	}
}
