package host

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gracerun/grace/supervisor/machine"
	"golang.org/x/sys/unix"
)

// A file that keeps its readers waiting must keep neither upgrades nor the end of grace.
func TestPreparationEndsThoughAFileCannotBeRead(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "env")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		timeout time.Duration
		want    string
	}{
		"in time":            {time.Millisecond, "deadline exceeded"},
		"when it is stopped": {time.Hour, "canceled"},
	} {
		t.Run(name, func(t *testing.T) {
			said := make(chan machine.Event, 1)
			a := &Host{
				Options:  Options{Command: []string{"/bin/sh"}, EnvFile: pipe, Policy: machine.Policy{ReadyTimeout: c.timeout}},
				Launches: map[int]*Preparation{}, LookUps: make(Semaphore, 1), Post: func(ev machine.Event) { said <- ev },
			}
			a.Prepare(machine.Prepare{Generation: 2})
			if c.want == "canceled" {
				a.Abandon(machine.Abandon{Generation: 2})
			}
			if failed, ok := (<-said).(machine.PrepareFailed); !ok || !strings.Contains(failed.Why, c.want) || !strings.Contains(failed.Why, "--env-file") {
				t.Errorf("%+v", failed)
			}
			writer, err := os.OpenFile(pipe, os.O_WRONLY, 0) // lets go of the reader
			if err != nil {
				t.Fatal(err)
			}
			writer.Close()
		})
	}
}

// Each HUP would leave a thread in the kernel, for a file system that does not answer.
func TestLookUpsThatHangAreBounded(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	said := make(chan machine.Event, 1)
	a := &Host{
		Options:  Options{Command: []string{"/bin/sh"}, EnvFile: pipe, Policy: machine.Policy{ReadyTimeout: time.Millisecond}},
		Launches: map[int]*Preparation{}, LookUps: make(Semaphore, 2), Post: func(ev machine.Event) { said <- ev },
	}
	for generation, want := range []string{"deadline exceeded", "deadline exceeded", "2 earlier look-ups have not ended", "2 earlier look-ups have not ended"} {
		a.Prepare(machine.Prepare{Generation: generation})
		if failed, ok := (<-said).(machine.PrepareFailed); !ok || !strings.Contains(failed.Why, want) {
			t.Errorf("%d: %+v", generation, failed)
		}
	}
	writer, err := os.OpenFile(pipe, os.O_WRONLY, 0) // lets go of the readers
	if err != nil {
		t.Fatal(err)
	}
	writer.Close()
	a.LookUps.enter()
	a.LookUps.enter()
}
