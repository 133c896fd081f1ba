package childproc

// wait is what a system call waits on, as its arguments say.
type wait int

const (
	onNothing    wait = iota
	onDescriptor      // the first is the descriptor
	onEpoll           // the first is the epoll set
	onPollfds         // the first points to pollfds, the second counts them
	onSet             // the first counts descriptors, the second points to the fd_set for reading
	onUnknown         // nobody has written down this architecture's numbers
)
