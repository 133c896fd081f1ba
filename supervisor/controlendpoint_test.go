package supervisor

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/gracerun/grace/childproc"
	"github.com/gracerun/grace/supervisor/control"
	"github.com/gracerun/grace/supervisor/host"
)

// At a logout the directory goes, and with it the way to grace.
func TestControlSocketIsMadeAnew(t *testing.T) {
	for name, harm := range map[string]func(dir string) error{
		"the socket is gone": func(dir string) error { return os.Remove(filepath.Join(dir, "web.sock")) },
		"the lock is gone":   func(dir string) error { return os.Remove(filepath.Join(dir, "web.lock")) },
		"all is gone":        func(dir string) error { return os.RemoveAll(dir) },
		"another one was there": func(dir string) error {
			return os.Rename(filepath.Join(dir, "web.lock"), filepath.Join(dir, "web.sock"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			parent := t.TempDir()
			dir := filepath.Join(parent, "grace")
			t.Setenv("XDG_RUNTIME_DIR", parent)
			t.Setenv("RUNTIME_DIRECTORY", "")
			l := startLoop(&fakeHost{}, testPolicy())
			d := &controlBackend{loop: l, apps: &host.Host{Reaper: new(childproc.Reaper), Farewells: host.NewFarewells(), Looks: make(host.Semaphore, 1)}, name: "web"}
			socket, err := control.Open("web")
			if err != nil {
				t.Fatal(err)
			}
			c, err := openControlEndpoint(socket, d)
			if err != nil {
				t.Fatal(err)
			}
			defer c.close()
			c.rest()
			if err := harm(dir); err != nil {
				t.Fatal(err)
			}
			c.attend(time.Millisecond)
			client := control.NewClient(filepath.Join(dir, "web.sock"))
			defer client.Close()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			for {
				_, gone := os.Stat(filepath.Join(dir, "web.lock"))
				if s, err := client.Status(ctx); err == nil && s.Name == "web" && gone == nil {
					break
				} else if ctx.Err() != nil {
					t.Fatalf("it cannot be asked any more: %v", err)
				}
				time.Sleep(time.Millisecond) // until it has looked
			}
			if _, err := control.Open("web"); err == nil {
				t.Error("another grace got its name")
			}
		})
	}
}
