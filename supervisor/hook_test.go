package supervisor

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/gracerun/grace/childproc"
	"golang.org/x/sys/unix"
)

func testHooks(t *testing.T, list ...Hook) (h *hooks, said chan event, dir string) {
	t.Helper()
	dir = t.TempDir()
	l, err := resolve(Options{Command: []string{"/bin/sh"}, Dir: dir, Umask: -1})
	if err != nil {
		t.Fatal(err)
	}
	family, err := childproc.NewFamily()
	if err != nil {
		t.Fatal(err)
	}
	said = make(chan event, 100)
	return newHooks(Options{Hooks: list, Name: "web"}, l, family, func(ev event) { said <- ev }), said, dir
}

func TestHooksAreToldTheFacts(t *testing.T) {
	h, said, dir := testHooks(t,
		Hook{FactUpgraded, `echo "$GRACE_EVENT $GRACE_NAME $GRACE_GENERATION $GRACE_TOOK ${GRACE_WHY-no reason}" >> facts`},
		Hook{FactFailed, `echo "$GRACE_EVENT: $GRACE_WHY" >> facts`})
	h.hear(time.Now(), report{text: "nothing for programs"})
	h.hear(time.Now(), report{fact: FactUpgraded, generation: 2, took: 1500 * time.Millisecond})
	h.hear(time.Now(), report{fact: FactFailed, generation: 3, why: "it's \"$(broken)\""})
	h.close()
	got, err := os.ReadFile(filepath.Join(dir, "facts"))
	want := "upgraded web 2 1.500 no reason\nfailed: it's \"$(broken)\"\n"
	if err != nil || string(got) != want {
		t.Errorf("the hooks have written %q (%v), not %q", got, err, want)
	}
	if len(said) > 0 {
		t.Errorf("%+v", <-said)
	}
}

func TestHookThatFailsIsTold(t *testing.T) {
	h, said, _ := testHooks(t, Hook{FactCrashed, "echo oh no >&2; exit 3"}, Hook{FactKilled, "exit 3"})
	h.hear(time.Now(), report{fact: FactCrashed})
	h.hear(time.Now(), report{fact: FactKilled})
	h.close()
	if n, ok := (<-said).(noticed); !ok || n.text != "hook failed: --on crashed" || n.why != "exit status 3: oh no" {
		t.Errorf("%+v", n)
	}
	if n, ok := (<-said).(noticed); !ok || n.text != "hook failed: --on killed" || n.why != "exit status 3" {
		t.Errorf("%+v", n)
	}
}

func TestHooksRestWhenAllHaveEnded(t *testing.T) {
	h, _, dir := testHooks(t, Hook{FactUpgraded, "cat gate > told"})
	gate := filepath.Join(dir, "gate")
	if err := unix.Mkfifo(gate, 0o600); err != nil {
		t.Fatal(err)
	}
	<-h.rest() // there is none
	h.hear(time.Now(), report{fact: FactUpgraded})
	rested := h.rest()
	f, err := os.OpenFile(gate, os.O_WRONLY, 0) // returns when the hook has opened it too
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-rested:
		t.Error("a hook still runs")
	default:
	}
	f.Close()
	<-rested
	h.close()
}

// TestHooksDoNotBlock: the queue of one that hangs is full at some time.
func TestHooksDoNotBlock(t *testing.T) {
	h, said, dir := testHooks(t, Hook{FactCrashed, "cat gate > /dev/null"})
	gate := filepath.Join(dir, "gate")
	if err := unix.Mkfifo(gate, 0o600); err != nil {
		t.Fatal(err)
	}
	for range hooksWaiting + 10 {
		h.hear(time.Now(), report{fact: FactCrashed})
	}
	if n, ok := (<-said).(noticed); !ok || n.text != "hook left out" {
		t.Errorf("%+v", n)
	}
	if err := os.Remove(gate); err != nil {
		t.Fatal(err)
	}
	h.cancel()
	h.close()
}
