package childproc

// Lookout tells whether processes wait for connections, from what the kernel
// shows of them. It is not safe for use by several goroutines at once.
type Lookout struct {
	inodes []uint64
}

// NewLookout makes a Lookout for the sockets with these inodes.
func NewLookout(inodes []uint64) *Lookout {
	return &Lookout{inodes: inodes}
}

// Look says for each socket whether one of pids waits on it.
func (l *Lookout) Look(pids []int) ([]bool, error) {
	return make([]bool, len(l.inodes)), ErrCannotLook
}

// Owner gives the first of pids that has the socket with this inode open, and 0
// if none has.
func Owner(inode uint64, pids []int) (int, error) {
	return 0, ErrCannotLook
}
