package childproc

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOwner(t *testing.T) {
	p, inode := startWaiter(t, roleCommand("waiter"), "epoll among many")
	q, other := startWaiter(t, roleCommand("waiter"), "listens only")
	r, headless := startWaiter(t, roleCommand("waiter"), "headless among many")
	pids := []int{os.Getpid(), p.pid(), q.pid(), r.pid()}
	for _, c := range []struct {
		inode uint64
		want  int
	}{{inode, p.pid()}, {other, q.pid()}, {headless, r.pid()}, {1, 0}} {
		if got, err := Owner(c.inode, pids); err != nil || got != c.want {
			t.Errorf("Owner(%d) = %d, %v, want %d", c.inode, got, err, c.want)
		}
	}
}

func TestUnowned(t *testing.T) {
	p, inode := startWaiter(t, roleCommand("waiter"), "epoll among many")
	q, other := startWaiter(t, roleCommand("waiter"), "listens only")
	r, headless := startWaiter(t, roleCommand("waiter"), "headless among many")
	all := []uint64{headless, 1, inode, other}
	for _, c := range []struct {
		pids []int
		want []uint64
	}{
		{[]int{p.pid(), q.pid(), r.pid()}, []uint64{1}},
		{[]int{q.pid()}, []uint64{headless, 1, inode}},
		{nil, all},
	} {
		got, err := Unowned(all, func() ([]int, error) { return c.pids, nil })
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("of %v: %v, %v, want %v", c.pids, got, err, c.want)
		}
	}
}

// A process whose parent ends while its turn has not come is missing in the list of that moment.
func TestUnownedAsksAgainForTheProcesses(t *testing.T) {
	p, inode := startWaiter(t, roleCommand("waiter"), "listens only")
	lists := [][]int{{os.Getpid()}, {os.Getpid(), p.pid()}, {os.Getpid(), p.pid()}}
	got, err := Unowned([]uint64{inode}, func() ([]int, error) {
		list := lists[0]
		lists = lists[1:]
		return list, nil
	})
	if err != nil || len(got) != 0 {
		t.Errorf("%v, %v", got, err)
	}
}

func TestUnownedTellsOfNothingWithoutTheProcesses(t *testing.T) {
	failed := errors.New("no list")
	if got, err := Unowned([]uint64{1}, func() ([]int, error) { return nil, failed }); got != nil || !errors.Is(err, failed) {
		t.Errorf("%v, %v", got, err)
	}
}

// A signal that comes during the read of a folder ends it early, sometimes before the first descriptor.
func TestSignalsHideNoDescriptor(t *testing.T) {
	p, _ := startWaiter(t, roleCommand("waiter"), "listens only")
	dir := must(unix.Open(fmt.Sprintf("/proc/%d/fd", p.pid()), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0))
	defer unix.Close(dir)
	defer floodThread(t)()
	for range 100_000 {
		must(unix.Seek(dir, 0, io.SeekStart))
		if names, err := someNames(dir); len(names) == 0 || err != nil {
			t.Fatalf("a process with descriptors had none, %v", err)
		}
	}
}

func TestRegistered(t *testing.T) {
	p, inode := startWaiter(t, roleCommand("waiter"), "epoll among many")
	q, other := startWaiter(t, roleCommand("waiter"), "listens only")
	for _, c := range []struct {
		inode uint64
		pid   int
		want  bool
	}{{inode, p.pid(), true}, {other, p.pid(), false}, {other, q.pid(), false}} {
		if got, err := Registered(c.inode, c.pid); err != nil || got != c.want {
			t.Errorf("%d by %d: %v, %v", c.inode, c.pid, got, err)
		}
	}
}

// floodThread sends the calling thread the signal by which Go's runtime interrupts, until the result is called.
func floodThread(t *testing.T) (end func()) {
	t.Helper()
	runtime.LockOSThread()
	thread, stop, ended := unix.Gettid(), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-stop:
				return
			default:
				if err := unix.Tgkill(os.Getpid(), thread, unix.SIGURG); err != nil {
					t.Error(err)
				}
			}
		}
	}()
	return func() {
		close(stop)
		<-ended
		runtime.UnlockOSThread()
	}
}
