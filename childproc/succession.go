package childproc

import "fmt"

// ProcessState is what a successor of this grace has to know of a Process. PIDFD stays the Process's: the successor
// gets a duplicate.
type ProcessState struct {
	PID, PIDFD int
	Path       string
	Group      bool // it leads a process group
	Mark       uint64
}

// NotifyState is what a successor has to know of a NotifySocket, whose descriptors stay its own.
type NotifyState struct {
	Path   string
	FD     int
	Former []int `json:",omitempty"` // of those whose path was removed, the oldest first
}

// take gives the number that a descriptor of the predecessor has here.
func take(fds map[int]int, there int) (int, error) {
	here, ok := fds[there]
	if !ok {
		return -1, fmt.Errorf("descriptor %d has not come with the state", there)
	}
	delete(fds, there)
	return here, nil
}
