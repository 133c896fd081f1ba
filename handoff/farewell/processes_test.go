package farewell

import (
	"os"
	"os/exec"
	"testing"

	"github.com/gracerun/grace/handoff/internal/apptest"
	"golang.org/x/sys/unix"
)

// ended gives the pidfd of a process that has ended and is reaped.
func ended(t *testing.T) int {
	t.Helper()
	c := exec.Command("true")
	apptest.Must(t, c.Start())
	pidfd, err := unix.PidfdOpen(c.Process.Pid, 0)
	apptest.Must(t, err)
	apptest.Must(t, c.Wait())
	return pidfd
}

func TestNumberOfAnEndedProcessIsMetAgain(t *testing.T) {
	w := newWire(t, "127.0.0.1")
	p := processes{pids: own, pidfds: map[int]int{os.Getpid(): ended(t)}}
	defer p.close()
	sockets, err := p.sockets()
	apptest.Must(t, err)
	inode := apptest.InodeBehind(w.app)
	fd, err := p.duplicate(inode, sockets[inode])
	apptest.Must(t, err)
	unix.Close(fd)
}

// It may have been another's when it was listed first.
func TestNumberHasToBeListedAgainWhenItIsHeld(t *testing.T) {
	listed := own
	p := processes{pids: func() ([]int, error) {
		list := listed
		listed = func() ([]int, error) { return nil, nil }
		return list()
	}}
	defer p.close()
	sockets, err := p.sockets()
	apptest.Must(t, err)
	if len(sockets) != 0 || len(p.pidfds) != 0 {
		t.Errorf("%d sockets of %d processes", len(sockets), len(p.pidfds))
	}
}
