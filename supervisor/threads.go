package supervisor

import (
	"runtime"
	"sync"
)

// What runs Go code takes a thread, and what waits in a system call takes one more. Where the limit of processes is reached
// (RLIMIT_NPROC, pids.max) Go cannot make one, and ends the program (newosproc in the runtime's os_linux.go). An app that
// has reached the limit is to be replaced, so grace has its threads from the beginning: the runtime keeps those that are idle.
const (
	// mostProcs bounds the threads that run Go code. A supervisor has no use for more.
	mostProcs = 4
	// spareThreads are enough for that, for the runtime's own, for each place where grace waits in the kernel (a fork, a log
	// that nobody reads, a slow file system, a reexec), and for short calls that the scheduler takes for long ones.
	spareThreads = 24
)

// reserveThreads makes the threads that grace may need, as far as that leaves room for the app.
func reserveThreads() {
	runtime.GOMAXPROCS(min(runtime.GOMAXPROCS(0), mostProcs))
	makeThreads(min(spareThreads, processRoom()/4))
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
