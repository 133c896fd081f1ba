package farewell

import (
	"context"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// descriptors bounds how many connections are held and kept: each takes a descriptor of this process, and a place in the
// maps. The rest of both is for everything else.
type descriptors struct {
	mu      sync.Mutex
	limit   int
	used    int
	waiting map[*waiting]bool
}

// waiting is a kept connection whose client has not asked yet.
type waiting struct {
	since time.Time // of the last word on it
	close context.CancelFunc
}

// descriptorShare is three quarters of what the process may have, or half of the maps' room, if that is less.
func descriptorShare() (int, error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0, err
	}
	return int(min(limit.Cur/4*3, room/2)), nil
}

// take reports whether there is one more. It is given back by put.
func (d *descriptors) take() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.used >= d.limit {
		return false
	}
	d.used++
	return true
}

func (d *descriptors) put() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.used--
}

func (d *descriptors) add(w *waiting) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.waiting == nil {
		d.waiting = make(map[*waiting]bool)
	}
	d.waiting[w] = true
}

func (d *descriptors) remove(w *waiting) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.waiting, w)
}

// freedWithin is for thousands to be closed.
const freedWithin = 500 * time.Millisecond

// free closes those of the kept that have been silent the longest, until there are as many descriptors as are wanted.
func (d *descriptors) free(wanted int) {
	closed := d.closeLongestSilent(wanted)
	for begin := time.Now(); closed > 0 && d.left() < wanted && time.Since(begin) < freedWithin; {
		time.Sleep(settleLooks)
	}
}

func (d *descriptors) left() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.limit - d.used
}

func (d *descriptors) closeLongestSilent(wanted int) (closed int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	missing := wanted - (d.limit - d.used)
	if missing <= 0 {
		return 0
	}
	var all []*waiting
	for w := range d.waiting {
		all = append(all, w)
	}
	slices.SortFunc(all, func(a, b *waiting) int { return a.since.Compare(b.since) })
	all = all[:min(missing, len(all))]
	for _, w := range all {
		w.close()
	}
	return len(all)
}
