package recipes

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/gracerun/grace/cmd/load"
	"github.com/gracerun/grace/internal/freeport"
	"github.com/gracerun/grace/test/harness"
)

// TestPageOfCanary has a good version get all clients, and a bad one none any more.
func TestPageOfCanary(t *testing.T) {
	r := recipes["canary"]
	r.require(t, "canary")
	t.Parallel()
	front := port(freeport.Address(t))
	p := readPage(t, "canary", map[string]string{"8080": front})
	dir := p.write(t)
	link(t, dir, append(r.needs, harness.GraceBinary()))

	server := start(t, dir, p.commands["canary"], "GRACE_SETTLE=50ms")
	server.AwaitReady(1)
	finish := loadHTTP(t, load.Config{Addr: "127.0.0.1:" + front, Clients: r.clients})
	server.UpgradeNext()
	server.AwaitGeneration("upgraded", 2)

	sends := `self.wfile.write(b"hello\n")`
	bad := strings.Replace(p.files["app.py"], sends, sends+`; raise RuntimeError("a bug")`, 1)
	if err := os.WriteFile(filepath.Join(dir, "app.py"), []byte(bad), 0o644); err != nil {
		t.Fatal(err)
	}
	server.Signal(syscall.SIGHUP)
	if e := server.AwaitGeneration("upgrade undone, generation 2 serves again", 3); !strings.HasSuffix(e.Why, "exit status 1: RuntimeError: a bug") {
		t.Errorf("the upgrade was undone: %s", e.Why)
	}
	server.AwaitGeneration("generation ended", 3)
	if err := finish(); err != nil {
		t.Error(err)
	}
	server.Stop()
	checkNoListener(t, front)
}
