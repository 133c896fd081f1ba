package supervisor

import (
	"math"
	"os"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/gracerun/grace/supervisor/machine"
	"golang.org/x/sys/unix"
)

// threads are those that the kernel knows of this program.
func threads(t *testing.T) map[int]bool {
	t.Helper()
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	known := make(map[int]bool)
	for _, task := range tasks {
		id, err := strconv.Atoi(task.Name())
		if err != nil {
			t.Fatal(err)
		}
		known[id] = true
	}
	return known
}

// What needs threads afterwards gets those that were made.
func TestThreadsThatWereMadeStay(t *testing.T) {
	const n = 40
	makeThreads(n)
	made := threads(t)
	if len(made) < n {
		t.Errorf("%d threads, of %d that were made", len(made), n)
	}
	taken := make(chan int, n)
	var all sync.WaitGroup // each has one for itself
	all.Add(n)
	for range n {
		go func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			taken <- unix.Gettid()
			all.Done()
			all.Wait()
		}()
	}
	fresh := 0
	for range n {
		if !made[<-taken] {
			fresh++
		}
	}
	if fresh > n/2 {
		t.Errorf("%d of %d threads were not there before", fresh, n)
	}
}

// The start has several, which are faster.
func TestOneThreadRunsGoOnceAnAppServes(t *testing.T) {
	const before = 3
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(before))
	var sole soleProc
	for _, step := range []struct {
		fact machine.Fact
		want int
	}{{machine.InstanceStarted, before}, {machine.InstanceReady, 1}} {
		sole.hear(time.Now(), line{Report: machine.Report{Fact: step.fact}})
		if n := runtime.GOMAXPROCS(0); n != step.want {
			t.Errorf("after %v Go has %d threads, not %d", step.fact, n, step.want)
		}
	}
}

func TestCgroupRoom(t *testing.T) {
	for _, line := range []string{"", "0::", "5:devices:/", "0::/no/such/cgroup", "nonsense"} {
		if room := cgroupRoom(line); room != math.MaxInt && line != "0::/no/such/cgroup" {
			t.Errorf("%q leaves room for %d", line, room)
		}
	}
	if room := processRoom(); room <= 0 {
		t.Errorf("there is room for %d processes", room)
	}
}
