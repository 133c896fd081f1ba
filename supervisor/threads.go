package supervisor

import (
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gracerun/grace/supervisor/machine"
	"golang.org/x/sys/unix"
)

// What runs Go code takes a thread, and what waits in a system call takes one more. Where the limit of processes is reached
// (RLIMIT_NPROC, pids.max) Go cannot make one, and ends the program (newosproc in the runtime's os_linux.go). An app that
// has reached the limit is to be replaced, so grace makes its threads in time: the runtime keeps those that are idle.
const (
	// mostProcs bounds the threads that run Go code until an app serves. A supervisor has no use for more.
	mostProcs = 4
	// spareThreads are enough for that, for the runtime's own, for each place where grace waits in the kernel (a fork, a log
	// that nobody reads, a slow file system, a reexec), and for short calls that the scheduler takes for long ones.
	spareThreads = 24
)

// threadReserve makes the threads that grace may need, as far as that leaves room for the app. They come once an app runs, which
// would have to wait for them.
type threadReserve struct{ making sync.Once }

func (r *threadReserve) hear(_ time.Time, l line) {
	if l.Fact == machine.InstanceStarted || l.Fact == machine.Adopted || l.Fact == machine.TakenOver {
		r.making.Do(func() { go makeThreads(min(spareThreads, processRoom()/4)) })
	}
}

// soleProc leaves one thread at a time that runs Go code, once the start is over, during which several are faster: an upgrade is a
// row of steps that wait for one another. With more, Go wakes up another thread at each step to look for work (wakep in the
// runtime's proc.go), and that takes the processor from the app that starts.
type soleProc struct{}

func (soleProc) hear(_ time.Time, l line) {
	if serves(l) {
		runtime.GOMAXPROCS(1)
	}
}

// makeThreads has so many goroutines wait, each with a thread of its own, which is idle when they have ended.
func makeThreads(n int) {
	var waiting, ended sync.WaitGroup
	enough := make(chan struct{})
	waiting.Add(n)
	for range n {
		ended.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			waiting.Done()
			<-enough
		})
	}
	waiting.Wait()
	close(enough)
	ended.Wait() // a thread that a goroutine is locked to is no idle one
}

// processRoom says how many processes and threads there may be more, as far as that can be told. Those of the user outside
// of a cgroup's limit are not counted.
func processRoom() int {
	room := math.MaxInt
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NPROC, &limit); err == nil && limit.Cur < math.MaxInt {
		room = int(limit.Cur)
	}
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return room
	}
	for line := range strings.Lines(string(text)) {
		room = min(room, cgroupRoom(strings.TrimSpace(line)))
	}
	return room
}

// cgroupRoom looks at the cgroup of one hierarchy and all above it (cgroups(7)). In a container the path may be the
// host's, and what can be seen begins with the container's own.
func cgroupRoom(line string) int {
	fields := strings.SplitN(line, ":", 3)
	room := math.MaxInt
	if len(fields) != 3 || fields[1] != "" && fields[1] != "pids" {
		return room
	}
	mount := filepath.Join("/sys/fs/cgroup", fields[1])
	for path := filepath.Clean("/" + fields[2]); ; path = filepath.Dir(path) {
		most, err := readNumber(filepath.Join(mount, path, "pids.max"))
		now, err2 := readNumber(filepath.Join(mount, path, "pids.current"))
		if err == nil && err2 == nil {
			room = min(room, max(0, most-now))
		}
		if path == "/" {
			return room
		}
	}
}

// readNumber fails for "max", which is no limit.
func readNumber(path string) (int, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}
