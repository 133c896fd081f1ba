package drain

// bell wakes the one that waits for it: there is something to receive if it has rung since the last receive.
type bell chan struct{}

func newBell() bell { return make(bell, 1) }

// ring does not wait.
func (b bell) ring() {
	select {
	case b <- struct{}{}:
	default:
	}
}
