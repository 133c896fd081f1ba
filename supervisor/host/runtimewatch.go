package host

import (
	"context"
	"time"

	"github.com/gracerun/grace/supervisor/dirwatch"
)

// watchRuntime begins to give everybody who asks a channel that is closed when something may have gone from the runtime directory. It
// ends with the host.
func (a *Host) watchRuntime() {
	a.runtimeLoss = make(chan (<-chan struct{}))
	ctx, cancel := context.WithCancel(context.Background())
	gone := make(chan struct{})
	go a.followRuntime(ctx, gone)
	go func() {
		defer cancel()
		a.tellLosses(gone)
	}()
}

func (a *Host) tellLosses(gone <-chan struct{}) {
	for next := make(chan struct{}); ; {
		select {
		case a.runtimeLoss <- next:
		case <-gone:
			close(next)
			next = make(chan struct{})
		case <-a.Ending:
			return
		}
	}
}

// followRuntime tells of a loss when it has begun to watch, too: until then nobody would have. Where the kernel cannot be asked, as
// where the user has no inotify instance left, there may be a loss after each interval.
func (a *Host) followRuntime(ctx context.Context, gone chan<- struct{}) {
	tell := func() {
		select {
		case gone <- struct{}{}:
		case <-ctx.Done():
		}
	}
	for pause := time.Duration(0); ctx.Err() == nil; {
		dir, err := dirwatch.Open(a.Runtime.Path)
		tell()
		if err != nil { // whoever was told may make the directory again
			pause = min(2*pause+time.Millisecond, a.heardInterval())
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
			continue
		}
		for pause = 0; dir.Wait(ctx) == nil && dir.InPlace(); {
			tell()
		}
		a.ReportError("cannot end the watch of the runtime directory", dir.Close())
	}
}
