package host

// sequence does what takes time away from the loop, one thing after another, in the order in which the loop has asked
// for it. It belongs to the loop.
type sequence struct{ last chan struct{} }

// do gives a channel that is closed when the work has ended, even by a panic.
func (s *sequence) do(work func()) <-chan struct{} {
	before, ended := s.last, make(chan struct{})
	s.last = ended
	go func() {
		defer close(ended)
		if before != nil {
			<-before
		}
		work()
	}()
	return ended
}

// rest gives a channel that is closed when all has ended that was asked for before.
func (s *sequence) rest() <-chan struct{} { return s.do(func() {}) }
