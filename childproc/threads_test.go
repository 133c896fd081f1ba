package childproc

import (
	"errors"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Where the limit of processes is reached Go cannot make a thread, and ends the program: what waits for an app must not
// hold one.
func TestWaitHoldsNoThread(t *testing.T) {
	f := newReaper(t)
	const n = 8
	for range n {
		p, err := f.Start(shell("exec sleep 60"))
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() {
			_, err := p.Wait()
			ended <- err
		}()
		defer func() {
			if err := errors.Join(p.Signal(syscall.SIGKILL), <-ended, p.Reap()); err != nil {
				t.Error(err)
			}
		}()
	}
	awaitState(t, "(*Process).waitEnd", "IO wait", n)
}

var stackHead = regexp.MustCompile(`^goroutine \d+ .*\[(.*)\]:`)

// awaitState waits until so many goroutines in a function are in a state. On the way there they are in others: one that holds a
// thread stays in "syscall".
func awaitState(t *testing.T, function, state string, n int) {
	t.Helper()
	var states []string
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		states = statesIn(function)
		if len(states) == n && !slices.ContainsFunc(states, func(s string) bool { return !strings.HasPrefix(s, state) }) {
			return
		}
	}
	t.Fatalf("of the goroutines in %s not %d are in %s: %q", function, n, state, states)
}

func statesIn(function string) (states []string) {
	text := make([]byte, 1<<20)
	for stack := range strings.SplitSeq(string(text[:runtime.Stack(text, true)]), "\n\n") {
		if head := stackHead.FindStringSubmatch(stack); head != nil && strings.Contains(stack, function) {
			states = append(states, head[1])
		}
	}
	return states
}
