package host

import (
	"time"

	"github.com/gracerun/grace/childproc"
)

// closedSockets are those that the app has opened and closed again, and that grace's
// duplicates keep open: clients would wait in them for nobody. A socket that is sent from
// one process to another is nobody's for a moment, and a look can miss who has one. So
// nobody has to have it for some time.
type closedSockets struct {
	apps  *Host
	main  func() int           // the process that most likely has them
	since map[uint64]time.Time // by inode
}

func newClosedSockets(a *Host, main func() int) *closedSockets {
	return &closedSockets{apps: a, main: main, since: map[uint64]time.Time{}}
}

// forget looks once. It gives up those of the sockets that were nobody's in each look for
// at least so long, and reports whether others may follow.
func (c *closedSockets) forget(sockets []uint64, after time.Duration) (more bool) {
	now, before := time.Now(), c.since
	c.since = map[uint64]time.Time{}
	var closed []uint64
	for _, inode := range c.unowned(sockets) {
		since, known := before[inode]
		switch {
		case !known:
			c.since[inode] = now
		case now.Sub(since) < after:
			c.since[inode] = since
		default:
			closed = append(closed, inode)
		}
	}
	c.apps.ReportError("cannot forget closed sockets", c.apps.Steering.Forget(closed...))
	return len(c.since) > 0
}

// unowned goes through all processes only for what the main one does not have.
func (c *closedSockets) unowned(sockets []uint64) []uint64 {
	elsewhere, err := childproc.Unowned(sockets, func() ([]int, error) { return []int{c.main()}, nil })
	if err == nil && len(elsewhere) == 0 {
		return nil
	}
	return c.apps.Unowned(sockets)
}

const (
	// closedFor is how long nobody has had a socket that a bind has others looked at for.
	closedFor = time.Second
	// reviewPause is how late the look after a bind is, and those that follow it. A server
	// may bind many addresses.
	reviewPause = 250 * time.Millisecond
)

// forgetClosed ends with the answers to the app. An app that binds may have closed what it
// had before.
func (c *captureHandler) forgetClosed(ended <-chan struct{}) {
	closed := newClosedSockets(c.apps, c.app.mainPID)
	for {
		select {
		case <-c.bound:
		case <-ended:
			return
		}
		for more := true; more; {
			select {
			case <-time.After(reviewPause):
			case <-ended:
				return
			}
			more = closed.forget(c.sockets(), closedFor)
		}
	}
}

func (c *captureHandler) sockets() []uint64 {
	var inodes []uint64
	for _, s := range c.apps.Steering.Sockets(c.app.member().Generation) {
		if s.InstanceKey == c.app.member() {
			inodes = append(inodes, s.Inode)
		}
	}
	return inodes
}
