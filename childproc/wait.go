package childproc

// wait is what a system call waits on, as its arguments say.
type wait int

const (
	onNothing      wait = iota
	onDescriptor        // the first is the descriptor
	onEpoll             // the first is the epoll set
	onPollfds           // the first points to pollfds, the second counts them
	onPollfdsAgain      // the same, if the thread is in poll: other calls go on under this number too
	onSet               // the first counts descriptors, the second points to the fd_set for reading
	onUnknown           // nobody has written down this architecture's numbers
)
