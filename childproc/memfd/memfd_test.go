package memfd

import (
	"os/exec"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

func TestSealedIsNotChanged(t *testing.T) {
	for name, create := range map[string]func(string, []byte) (int, error){"text": Sealed, "program": Executable} {
		fd, err := create(name, []byte("hello"))
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		text := make([]byte, 9)
		if n, err := unix.Pread(fd, text, 0); err != nil || string(text[:n]) != "hello" {
			t.Errorf("%s: %q, %v", name, text[:n], err)
		}
		if _, err := unix.Pwrite(fd, []byte("x"), 0); err != unix.EPERM {
			t.Errorf("%s: a write gives %v", name, err)
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags != unix.FD_CLOEXEC {
			t.Errorf("%s: flags %d, %v", name, flags, err)
		}
	}
}

func TestOnlyProgramsAreExecuted(t *testing.T) {
	const script = "#!/bin/true\n"
	program, err := Executable("program", []byte(script))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(program)
	text, err := Sealed("text", []byte(script))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(text)
	if err := exec.Command(path(program)).Run(); err != nil {
		t.Errorf("program: %v", err)
	}
	mode, err := modeOf(text)
	if executed := exec.Command(path(text)).Run() == nil; err != nil || executed != (mode&0o111 != 0) {
		t.Errorf("the text, of mode %o, was executed: %v, %v", mode, executed, err)
	}
	probe, err := unix.MemfdCreate("", unix.MFD_CLOEXEC|unix.MFD_NOEXEC_SEAL)
	unix.Close(probe)
	if known := err != unix.EINVAL; known == (mode&0o111 != 0) { // before Linux 6.3 files in memory can always be executed
		t.Errorf("the text has mode %o", mode)
	}
}

func modeOf(fd int) (uint32, error) {
	var stat unix.Stat_t
	err := unix.Fstat(fd, &stat)
	return stat.Mode, err
}

// path is one that a script's interpreter can open too.
func path(fd int) string { return "/proc/" + strconv.Itoa(unix.Getpid()) + "/fd/" + strconv.Itoa(fd) }
