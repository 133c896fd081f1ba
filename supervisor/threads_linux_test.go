package supervisor

import (
	"math"
	"os"
	"runtime/metrics"
	"testing"
)

func threads(t *testing.T) int {
	t.Helper()
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	return len(tasks)
}

// What is kept is counted by the kernel; the runtime gives no idle thread up.
func TestThreadsThatWereMadeStay(t *testing.T) {
	const n = 40
	makeThreads(n)
	if got := threads(t); got < n {
		t.Errorf("%d threads, of %d that were made", got, n)
	}
	sample := []metrics.Sample{{Name: "/sched/threads/total:threads"}}
	metrics.Read(sample)
	before := sample[0].Value.Uint64()
	makeThreads(n) // takes those that are idle
	metrics.Read(sample)
	if after := sample[0].Value.Uint64(); after > before+n/2 {
		t.Errorf("%d threads became %d", before, after)
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
