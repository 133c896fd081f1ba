package host

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gracerun/grace/childproc"
	"github.com/gracerun/grace/supervisor/machine"
)

// lockedOut is how soon an app ends that does not get a lock, if it does not wait for it. Most try for some seconds.
const lockedOut = 10 * time.Second

// replaces are the processes of the generation that an instance is to replace, those that serve. It is the loop's.
func (a *Host) replaces(s machine.Start) (pids []int) {
	for _, app := range a.Running {
		if s.Predecessor != 0 && app.generation == s.Predecessor && app.waiting.Err() != nil && len(app.processes) > 0 {
			pids = append(pids, app.main().PID)
		}
	}
	slices.Sort(pids)
	return pids
}

// firstLockLook is when an instance is worth a look at its files that is not ready yet.
const firstLockLook = time.Second

// lockLook is the last look for a lock that keeps an instance from serving. It may cost as much as all descriptors of the old generation, so
// that each look comes at double the time of the one before.
type lockLook struct {
	due time.Duration
	why string
}

// obstacle names a lock of the old generation on a file that the instance has open, too: it may wait for that lock.
func (l *lockLook) obstacle(v *readinessCheck, pids []int) string {
	elapsed := time.Since(v.begun)
	if v.app.start.Predecessor > 0 && elapsed >= max(l.due, firstLockLook) {
		l.why = lockText(v.app.start.Predecessor, childproc.Opened(pids, v.apps.lockedBefore(v.app)))
		l.due = 2 * elapsed
	}
	return l.why
}

// LockedFiles has the files that were found locked last. All instances of a generation ask for those of the same processes at about the
// same time, and each look goes through all descriptors of these. Whoever looks has what is in it meanwhile.
type LockedFiles chan lockedFiles

type lockedFiles struct {
	by    []int // the main processes
	at    time.Time
	files map[childproc.FileID]string
}

func NewLockedFiles() LockedFiles {
	f := make(LockedFiles, 1)
	f <- lockedFiles{}
	return f
}

// lockedFor is how long what was found is taken for true.
const lockedFor = time.Second

func (a *Host) lockedBefore(app *InstanceProcess) map[childproc.FileID]string {
	last := <-a.Locked
	if !slices.Equal(last.by, app.before) || time.Since(last.at) > lockedFor {
		trees, _ := a.treesOf(app.before) // who has ended holds nothing
		last = lockedFiles{app.before, time.Now(), childproc.Locked(trees)}
	}
	a.Locked <- last
	return last.files
}

// lockedOutBy names a lock for an instance that has ended soon. Which file it has tried to lock nobody can see any more, so it is told only where
// it may be the same one: instances that serve side by side have files of their own, as has who writes its pid into the name.
func (a *Host) lockedOutBy(app *InstanceProcess) string {
	if app.start.Predecessor <= 0 || len(app.before) != 1 || time.Since(app.began) > lockedOut {
		return ""
	}
	paths := slices.Sorted(maps.Values(a.lockedBefore(app)))
	pid := strconv.Itoa(app.before[0])
	return lockText(app.start.Predecessor, slices.DeleteFunc(paths, func(path string) bool { return strings.Contains(filepath.Base(path), pid) }))
}

func lockText(generation int, paths []string) string {
	if len(paths) == 0 {
		return ""
	}
	return fmt.Sprintf("generation %d holds a lock on %s: if the app cannot run twice, use grace restart or --max-surge 0", generation, listing(paths))
}
