package childproc

import (
	"errors"
	"regexp"
	"runtime"
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
	states := awaitStates(t, "(*Process).waitEnd", n)
	for _, state := range states {
		if !strings.HasPrefix(state, "IO wait") {
			t.Errorf("a wait for a process holds a thread: goroutine in state %q", state)
		}
	}
}

var stackHead = regexp.MustCompile(`^goroutine \d+ .*\[(.*)\]:`)

// awaitStates returns the states of the goroutines in a function once there are as many, and none of them runs.
func awaitStates(t *testing.T, function string, n int) []string {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		var states []string
		text := make([]byte, 1<<20)
		for stack := range strings.SplitSeq(string(text[:runtime.Stack(text, true)]), "\n\n") {
			head := stackHead.FindStringSubmatch(stack)
			if head != nil && strings.Contains(stack, function) && !strings.HasPrefix(head[1], "run") {
				states = append(states, head[1])
			}
		}
		if len(states) == n {
			return states
		}
	}
	t.Fatalf("%d goroutines are not in %s within a minute", n, function)
	return nil
}
