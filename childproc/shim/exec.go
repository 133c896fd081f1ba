package shim

import (
	"runtime"
	"strconv"
	"syscall"
	"unsafe"
)

// execute becomes the app.
func (e Spec) execute(argv []string) error {
	if e.Program == 0 {
		return syscall.Exec(e.Path, argv, syscall.Environ())
	}
	syscall.CloseOnExec(e.Program)
	if err := executeFile(e.Program, argv, syscall.Environ()); err != syscall.ENOSYS {
		return err
	}
	return syscall.Exec("/proc/self/fd/"+strconv.Itoa(e.Program), argv, syscall.Environ())
}

// executeFile is syscall.Exec for a descriptor. Only execveat names the process after the file (from Linux 6.14 on, in
// begin_new_exec of fs/exec.c), not after the descriptor's number. What syscall.Exec does besides is of no use here:
// nothing has raised RLIMIT_NOFILE before package os, and where the exec keeps a thread from being made the runtime tries
// again (retryOnEAGAIN in runtime/retry.go).
func executeFile(fd int, argv, environ []string) error {
	call, ok := map[string]uintptr{"amd64": 322, "arm64": 281}[runtime.GOARCH]
	if !ok {
		return syscall.ENOSYS
	}
	args, err := syscall.SlicePtrFromStrings(argv)
	if err != nil {
		return err
	}
	env, err := syscall.SlicePtrFromStrings(environ)
	if err != nil {
		return err
	}
	const emptyPath = 0x1000 // AT_EMPTY_PATH of linux/fcntl.h
	_, _, errno := syscall.RawSyscall6(call, uintptr(fd), uintptr(unsafe.Pointer(new(byte))),
		uintptr(unsafe.Pointer(&args[0])), uintptr(unsafe.Pointer(&env[0])), emptyPath, 0)
	return errno
}
