package takeover

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gracerun/grace/cmd/load"
	"github.com/gracerun/grace/internal/freeport"
	"github.com/gracerun/grace/internal/requirement"
	"github.com/gracerun/grace/test/harness"
)

// fpm is the program, which has its version in its name on Debian.
func fpm(t *testing.T) string {
	t.Helper()
	found, _ := filepath.Glob("/usr/sbin/php-fpm*")
	if path, err := exec.LookPath("php-fpm"); err == nil {
		found = append(found, path)
	}
	if len(found) == 0 {
		requirement.Check(t, "php-fpm", exec.ErrNotFound)
	}
	return found[0]
}

// startFront is a web server, which opens a connection to php-fpm for each request, and never another one.
func startFront(t *testing.T, network, back, files string) string {
	t.Helper()
	front := freeport.Address(t)
	if network == "unix" {
		back = "unix:" + back
	}
	text := strings.NewReplacer("FRONT", front, "BACK", back, "FILES", files).Replace(harness.Read(t, harness.Testdata(t, "servers/fastcgi.conf")))
	dir := harness.WorldFolder(t)
	harness.Write(t, dir, "front.conf", text, 0o644)
	harness.Need(t, "nginx")
	p := harness.StartProcess(t, exec.Command("nginx", "-p", dir, "-e", "stderr", "-c", "front.conf"))
	t.Cleanup(func() { p.Stop() })
	harness.AwaitListener(t, "tcp", front)
	return front
}

// php-fpm does not start where it finds another one at its path, unless it gets the socket.
func TestPHPIsTakenOver(t *testing.T) {
	for name, listen := range map[string]string{"captured, tcp": "", "held, tcp": "web=", "held, unix": "web=unix://"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr, network := freeport.Address(t), "tcp"
			if strings.HasSuffix(name, "unix") {
				mayMount(t)
				addr, network = filepath.Join(harness.WorldFolder(t), "s"), "unix"
			}
			run := []string{"--takeover", "--settle", "50ms", "--stop-signal", "QUIT"}
			if listen != "" {
				run = append(run, "--listen", listen+addr, "--dialect", "php-fpm")
			}
			program, command := fpm(t), "--nodaemonize --fpm-config FILES/php-fpm.conf"
			old := startOldAt(t, network, addr, program+" "+command, "", []string{"servers/php-fpm.conf", "servers/index.php"}, nil)
			front := startFront(t, network, addr, old.dir)
			harness.UnderLoad(t, load.Config{Addr: front, Clients: passing}, func() {
				s := harness.Start(t, append(append(run, "--", program), strings.Fields(strings.ReplaceAll(command, "FILES", old.dir))...)...)
				s.AwaitReady(1)
				if e := s.AwaitGeneration("generation ended", 0); e.Why != "drained" {
					t.Errorf("the server has ended: %s", e.Why)
				}
				harness.CheckEnded(t, old.PID())
				t.Cleanup(s.Stop)
			})
		})
	}
}
