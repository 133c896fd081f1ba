package sockdiag

import "fmt"

// Descriptors calls visit with every descriptor of the processes that is a socket, and the socket's inode. A process that has
// gone has none. It needs the right to look into the processes: their user's, or root's.
func Descriptors(pids []int, visit func(pid, fd int, inode uint64)) error {
	for _, pid := range pids {
		err := eachDescriptor(pid, func(fd int, inode uint64) { visit(pid, fd, inode) })
		if err != nil && !ended(pid) {
			return fmt.Errorf("cannot look into pid %d: %w", pid, err)
		}
	}
	return nil
}
