package host

// MostLooks bounds what may be slow in the kernel and may be asked for at once: a status, a look at an instance.
const MostLooks = 4

// Gate lets so many in at once as it has room for.
type Gate chan struct{}

func (g Gate) enter() { g <- struct{}{} }

func (g Gate) Leave() { <-g }
