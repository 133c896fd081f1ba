package host

// MostLooks bounds what may be slow in the kernel and may be asked for at once: a status, a look at an instance.
const MostLooks = 4

// Semaphore lets so many in at once as it has room for.
type Semaphore chan struct{}

func (g Semaphore) enter() { g <- struct{}{} }

func (g Semaphore) Release() { <-g }
