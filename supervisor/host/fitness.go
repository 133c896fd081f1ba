package host

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/gracerun/grace/childproc"
	"github.com/gracerun/grace/supervisor/machine"
)

// watchFitness looks, where somebody has asked for that, whether an instance should be replaced, from the time on when it is ready.
// One that leaves is not asked any more: a probe would be one more client to wait for.
func (a *Host) watchFitness(app *InstanceProcess) {
	if a.Options.MaxMemory > 0 {
		w := &memoryWatch{host: a, app: app}
		go Guard(app.onceReady(w.watch), a.Notice("cannot see any more how much memory the app uses"))()
	}
	if a.Options.Liveness.wanted() {
		p := newLivenessProbe(a, app)
		go Guard(app.onceReady(p.watch), a.Notice("cannot see any more whether the app works"))()
	}
}

// onceReady does nothing where the instance never gets so far.
func (a *InstanceProcess) onceReady(watch func()) func() {
	return func() {
		select {
		case <-a.waiting.Done():
			watch()
		case <-a.serving.Done():
		}
	}
}

const (
	// memoryPause is between two looks, and memoryRest where less than half of what is allowed is used.
	memoryPause = 5 * time.Second
	memoryRest  = 15 * time.Second
)

// memoryWatch holds the memory of one instance's processes against --max-memory. It belongs to one goroutine.
type memoryWatch struct {
	host   *Host
	app    *InstanceProcess
	beyond int    // looks in a row that have seen more than is allowed
	told   string // why it cannot look as it should
}

func (w *memoryWatch) watch() {
	for interval := memoryPause; pause(w.app.serving, interval) == nil; {
		used, err := w.look()
		w.judge(used, err)
		interval = memoryPause
		if used < w.host.Options.MaxMemory/2 {
			interval = memoryRest
		}
	}
}

// judge needs two looks: many an app uses more for a moment, while it starts or collects its garbage.
func (w *memoryWatch) judge(used int64, err error) {
	if err != nil && err.Error() != w.told {
		w.told = err.Error()
		w.host.Post(machine.Noticed{Text: "cannot see how much memory the app's processes share: shared pages are counted for each of them", Why: w.told})
	}
	if used <= w.host.Options.MaxMemory {
		w.beyond = 0
		return
	}
	if w.beyond++; w.beyond > 1 {
		why := fmt.Sprintf("the instance uses %s of memory (--max-memory %s)", Size(used), Size(w.host.Options.MaxMemory))
		w.host.Post(machine.Unfit{Instance: w.app.start.Instance, Why: why}) // which the machine may know already
	}
}

// look takes the cheap bound if that is enough. Where the other one cannot be had, the bound comes with an error.
func (w *memoryWatch) look() (int64, error) {
	pids, err := w.host.Reaper.Tree(int(w.app.reader.main.Load()))
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil // it ends
	}
	if err != nil {
		return 0, err
	}
	bound, err := childproc.Resident(pids)
	if err != nil || bound <= w.host.Options.MaxMemory {
		return bound, err
	}
	w.host.Looks.enter() // the kernel may take long for large ones
	defer w.host.Looks.Release()
	used, err := childproc.Proportional(pids)
	if err != nil {
		return bound, err
	}
	return used, nil
}
