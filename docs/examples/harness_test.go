//go:build linux

package examples

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/gracerun/grace/docs/examples/internal/supervised"
	"github.com/gracerun/grace/internal/freeport"
	"github.com/gracerun/grace/test/harness"
)

const patience = harness.Patience

func TestMain(m *testing.M) {
	os.Exit(supervised.Run(m.Run, "./worker", "./http", "./echo", "./gin", "./chi", "./fiber"))
}

// buildMinimal puts a free address in the place of minimal's own: it has no line to spare for a flag.
func buildMinimal(t *testing.T) (addr string) {
	t.Helper()
	path, err := filepath.Abs("minimal/main.go")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const usual = `":8080"`
	if !bytes.Contains(source, []byte(usual)) {
		t.Fatalf("%s does not listen on %s", path, usual)
	}
	addr = freeport.Address(t)
	source = bytes.Replace(source, []byte(usual), fmt.Appendf(nil, "%q", addr), 1)
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {path: write(t, "minimal.go", source)}})
	if err != nil {
		t.Fatal(err)
	}
	if err := supervised.Build("-overlay", write(t, "overlay.json", overlay), "./minimal"); err != nil {
		t.Fatal(err)
	}
	return addr
}

// write makes a file that is removed after the test.
func write(t *testing.T, name string, text []byte) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// dial connects as soon as somebody listens.
func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	var conn net.Conn
	harness.Until(t, "somebody listens at "+addr, func() bool {
		var err error
		conn, err = net.Dial("tcp", addr)
		return err == nil
	})
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return conn
}
