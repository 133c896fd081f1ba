package deadline

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := Context(t.Context(), time.Minute)
		defer cancel()
		begun := time.Now()
		<-ctx.Done()
		if err := context.Cause(ctx); time.Since(begun) != time.Minute || err != context.DeadlineExceeded {
			t.Errorf("done after %s: %v", time.Since(begun), err)
		}
		ctx, cancel = Context(t.Context(), time.Minute)
		cancel()
		if err := context.Cause(ctx); err != context.Canceled {
			t.Error(err)
		}
	})
}

func TestForget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		timer := time.AfterFunc(time.Minute, func() { t.Error("a stopped timer has expired") })
		timer.Stop()
		Forget(timer)
		time.Sleep(time.Hour)
	})
}
