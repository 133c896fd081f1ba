package supervisor

// mostLooks bounds what may be slow in the kernel and may be asked for at once: a status, a look at an instance.
const mostLooks = 4

// gate lets so many in at once as it has room for.
type gate chan struct{}

func (g gate) enter() { g <- struct{}{} }

func (g gate) leave() { <-g }
