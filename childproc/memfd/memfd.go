// Package memfd makes files in memory, which have no path (memfd_create(2)). Whoever gets a descriptor owns it; it is
// close-on-exec. The errors are error numbers. Where the system executes no files in memory (vm.memfd_noexec=2, SELinux),
// it still lets those be made that say so.
package memfd

import (
	"errors"

	"golang.org/x/sys/unix"
)

// Create gives an empty file that cannot be executed.
func Create(name string) (int, error) { return create(name, unix.MFD_NOEXEC_SEAL) }

// Sealed gives a file that nobody can change, nor execute.
func Sealed(name string, text []byte) (int, error) {
	fd, err := Create(name)
	if err != nil {
		return -1, err
	}
	return fill(fd, text)
}

// Executable gives a program that nobody can change.
func Executable(name string, program []byte) (int, error) {
	fd, err := create(name, unix.MFD_EXEC)
	if err != nil {
		return -1, err
	}
	return fill(fd, program)
}

// create leaves out whether it can be executed where the kernel does not know that (before Linux 6.3).
func create(name string, execution int) (int, error) {
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate(name, flags|execution)
	if err == unix.EINVAL {
		return unix.MemfdCreate(name, flags)
	}
	return fd, err
}

func fill(fd int, text []byte) (int, error) {
	var err error
	for len(text) > 0 && err == nil {
		var n int
		n, err = unix.Write(fd, text)
		text = text[max(n, 0):]
	}
	if err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_WRITE|unix.F_SEAL_GROW|unix.F_SEAL_SHRINK|unix.F_SEAL_SEAL)
	}
	if err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}
