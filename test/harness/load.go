package harness

import (
	"context"
	"syscall"
	"testing"
	"time"

	"github.com/gracerun/grace/cmd/load"
)

// EveryKind is the load of a web app: each way to lose a request.
var EveryKind = map[load.Kind]int{
	load.NewConnection: 2, load.KeepAliveGet: 4, load.KeepAlivePost: 4, load.Slow: 2, load.Stream: 2,
}

// FewClients are clients that never retry and think for a few milliseconds.
var FewClients = map[load.Kind]int{load.NewConnection: 2, load.KeepAliveGet: 2, load.KeepAlivePost: 2, load.Slow: 1}

// AwaitAnswerOf waits until a process of an instance has answered a client.
func AwaitAnswerOf(t *testing.T, l *load.Load, instance int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	if _, err := l.Await(ctx, func(source load.Source) bool {
		group, err := syscall.Getpgid(source.Pid)
		return err == nil && group == instance
	}); err != nil {
		t.Fatalf("no process of instance %d has answered: %v\n%s", instance, err, l.Snapshot())
	}
}

// UnderLoad runs do while clients that never retry send load, and wants not one
// request to fail.
func UnderLoad(t *testing.T, cfg load.Config, do func()) load.Tally {
	t.Helper()
	if cfg.ThinkMax == 0 {
		cfg.ThinkMax = 4 * time.Millisecond
	}
	if cfg.Clients[load.Slow] > 0 && cfg.Paths == nil {
		cfg.Paths = map[load.Kind]string{load.Slow: "/slow?for=300ms"}
	}
	l, err := load.Start(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	do()
	tally := l.Stop()
	if tally.Failures() > 0 || tally.Requests() == 0 {
		t.Errorf("of %d requests %d failed: %v, first %v", tally.Requests(), tally.Failures(), tally.ByFailure(), tally.First)
	}
	t.Logf("%d requests, %d events, %d failures", tally.Requests(), tally.Events(), tally.Failures())
	return tally
}
