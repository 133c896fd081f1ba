package drain

// wakeup wakes the one goroutine that receives from it. A wake while no goroutine waits is kept for the next receive.
// Several are merged into one, so the receiver must check the state again.
type wakeup chan struct{}

func newWakeup() wakeup { return make(wakeup, 1) }

// wake does not block.
func (w wakeup) wake() {
	select {
	case w <- struct{}{}:
	default:
	}
}
