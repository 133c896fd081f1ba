package drain

// wakeup wakes the one goroutine that receives from it. A wake that comes while none waits is kept for the next receive,
// and several are one: the receiver looks at the state anew.
type wakeup chan struct{}

func newWakeup() wakeup { return make(wakeup, 1) }

// wake does not block.
func (w wakeup) wake() {
	select {
	case w <- struct{}{}:
	default:
	}
}
