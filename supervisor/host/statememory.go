package host

import (
	"errors"
	"fmt"

	"github.com/gracerun/grace/childproc/memfd"
	"golang.org/x/sys/unix"
)

// StateMemory is the state in memory that has no path (memfd_create(2)), and that a service manager can keep. It belongs to one
// goroutine.
type StateMemory struct {
	fd     int
	inode  uint64
	states stateHalves
}

// NewStateMemory gives an empty one.
func NewStateMemory() (*StateMemory, error) {
	fd, err := memfd.Create("grace-state")
	if err != nil {
		return nil, fmt.Errorf("cannot keep the state in memory: %w", err)
	}
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return &StateMemory{fd: fd, inode: stat.Ino, states: stateHalves{fd: fd}}, nil
}

// Write puts a state in place of the older one. Its number is higher than all before.
func (m *StateMemory) Write(number uint64, text []byte) error {
	if err := m.states.write(number, text); err != nil {
		return fmt.Errorf("cannot keep the state in memory: %w", err)
	}
	return nil
}

// Name is that by which a service manager keeps it. It differs for each grace process: the state of the one before is kept until there
// is one of this.
func (m *StateMemory) Name() string { return memoryName(m.inode) }

func memoryName(inode uint64) string { return fmt.Sprintf("%s%d", memoryPrefix, inode) }

const memoryPrefix = storedPrefix + "state-"

func (m *StateMemory) Close() error { return unix.Close(m.fd) }
