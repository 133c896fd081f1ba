package drain

import (
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// Whoever signals a process and its group, as timeout of coreutils does, means one end and not two.
func TestSignalThatIsRepeatedAtOnceIsOne(t *testing.T) {
	for name, tt := range map[string]struct {
		second syscall.Signal
		after  time.Duration
		cuts   bool
	}{
		"at once":                {syscall.SIGTERM, 0, false},
		"soon":                   {syscall.SIGTERM, repeatWindow - 1, false},
		"later":                  {syscall.SIGTERM, repeatWindow, true},
		"another signal":         {syscall.SIGINT, 0, true},
		"one that ends at once":  {syscall.SIGQUIT, 0, true},
		"another, after a while": {syscall.SIGINT, time.Second, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStop(t.Context())
				defer s.close()
				s.waits.Store(true)
				go s.run([]os.Signal{syscall.SIGTERM, syscall.SIGINT})
				s.signals <- syscall.SIGTERM
				synctest.Wait()
				if s.begin.Err() == nil || s.now.Err() != nil {
					t.Error("the first signal does not begin a drain")
				}
				time.Sleep(tt.after)
				s.signals <- tt.second
				synctest.Wait()
				if cut := s.now.Err() != nil; cut != tt.cuts {
					t.Errorf("cut is %v, not %v", cut, tt.cuts)
				}
			})
		})
	}
}
