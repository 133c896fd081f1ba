package host

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/gracerun/grace/childproc"
	"github.com/gracerun/grace/supervisor/machine"
	"golang.org/x/sys/unix"
)

func testHooks(t *testing.T, list ...Hook) (h *Hooks, said chan machine.Event, dir string) {
	t.Helper()
	dir = t.TempDir()
	l, err := Resolve(Options{Command: []string{"/bin/sh"}, Dir: dir, Umask: -1})
	if err != nil {
		t.Fatal(err)
	}
	reaper, err := childproc.NewReaper()
	if err != nil {
		t.Fatal(err)
	}
	said = make(chan machine.Event, 100)
	return NewHooks(Options{Hooks: list}, "web", l, reaper, func(ev machine.Event) { said <- ev }), said, dir
}

func TestHooksAreToldTheFacts(t *testing.T) {
	h, said, dir := testHooks(t,
		Hook{"upgraded", `echo "$GRACE_EVENT $GRACE_NAME $GRACE_GENERATION $GRACE_TOOK ${GRACE_WHY-no reason}" >> facts`},
		Hook{"failed", `echo "$GRACE_EVENT: $GRACE_WHY" >> facts`})
	h.Run(HookFacts{Text: "nothing for programs"})
	h.Run(HookFacts{Event: "upgraded", Generation: 2, Took: 1500 * time.Millisecond})
	h.Run(HookFacts{Event: "failed", Generation: 3, Why: "it's \"$(broken)\""})
	h.Close()
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
	h, said, _ := testHooks(t, Hook{"crashed", "echo oh no >&2; exit 3"}, Hook{"killed", "exit 3"})
	h.Run(HookFacts{Event: "crashed"})
	h.Run(HookFacts{Event: "killed"})
	h.Close()
	if n, ok := (<-said).(machine.Noticed); !ok || n.Text != "hook failed: --on crashed" || n.Why != "exit status 3: oh no" {
		t.Errorf("%+v", n)
	}
	if n, ok := (<-said).(machine.Noticed); !ok || n.Text != "hook failed: --on killed" || n.Why != "exit status 3" {
		t.Errorf("%+v", n)
	}
}

func TestHooksRestWhenAllHaveEnded(t *testing.T) {
	h, _, dir := testHooks(t, Hook{"upgraded", "cat gate > told"})
	gate := filepath.Join(dir, "gate")
	if err := unix.Mkfifo(gate, 0o600); err != nil {
		t.Fatal(err)
	}
	<-h.Rest() // there is none
	h.Run(HookFacts{Event: "upgraded"})
	rested := h.Rest()
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
	h.Close()
}

// TestHooksDoNotBlock: the queue of one that hangs is full at some time.
func TestHooksDoNotBlock(t *testing.T) {
	h, said, dir := testHooks(t, Hook{"crashed", "cat gate > /dev/null"})
	gate := filepath.Join(dir, "gate")
	if err := unix.Mkfifo(gate, 0o600); err != nil {
		t.Fatal(err)
	}
	for range hooksWaiting + 10 {
		h.Run(HookFacts{Event: "crashed"})
	}
	if n, ok := (<-said).(machine.Noticed); !ok || n.Text != "hook skipped: --on crashed" {
		t.Errorf("%+v", n)
	}
	if err := os.Remove(gate); err != nil {
		t.Fatal(err)
	}
	h.cancel()
	h.Close()
}
