package host

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// StateFile is the state in a RuntimeDir. A file that stays is written some ten times faster than one that is created for each
// state, and each start of an app waits for it. It belongs to one goroutine.
type StateFile struct {
	dir    RuntimeDir
	file   *os.File // nil: there is none yet
	states stateHalves
}

// NewStateFile is for the one who has the directory. The file is created when it is written to.
func NewStateFile(dir RuntimeDir) *StateFile { return &StateFile{dir: dir} }

// Write puts a state in place: who reads it finds this one or the one before. Its number is higher than all before.
func (f *StateFile) Write(number uint64, text []byte) error {
	if err := f.dir.own(); err != nil {
		return err
	}
	if f.file != nil && f.inPlace() {
		return f.states.write(number, text)
	}
	return f.create(number, text)
}

func (f *StateFile) path() string { return filepath.Join(f.dir.Path, stateName) }

// inPlace: those who clean up remove files that they take for old.
func (f *StateFile) inPlace() bool {
	var open, there unix.Stat_t
	return unix.Fstat(int(f.file.Fd()), &open) == nil && unix.Lstat(f.path(), &there) == nil && open.Dev == there.Dev && open.Ino == there.Ino
}

// create leaves the state that another grace process has left in place until there is a new one.
func (f *StateFile) create(number uint64, text []byte) error {
	if err := f.Close(); err != nil {
		return err
	}
	file, err := os.OpenFile(f.path()+"-new", os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	f.file, f.states = file, stateHalves{fd: int(file.Fd())}
	if err := f.states.write(number, text); err != nil {
		return err
	}
	return os.Rename(file.Name(), f.path())
}

// Close leaves the file. It may be called again.
func (f *StateFile) Close() error {
	if f.file == nil {
		return nil
	}
	defer func() { f.file = nil }()
	return f.file.Close()
}

// ReadState gives os.ErrNotExist where there is none.
func (d RuntimeDir) ReadState() ([]byte, error) {
	fd, err := unix.Open(filepath.Join(d.Path, stateName), unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), stateName)
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !info.Mode().IsRegular() || !ok || !mine(owner.Uid) || info.Mode().Perm()&0o077 != 0 {
		return nil, errors.New("it is not a file that belongs to grace's user alone")
	}
	if text := readStateHalves(fd); text != nil {
		return text, nil
	}
	if info.Size() > longestState {
		return nil, fmt.Errorf("it has %d bytes", info.Size())
	}
	return io.ReadAll(io.LimitReader(f, longestState)) // grace processes before wrote nothing but the state
}
