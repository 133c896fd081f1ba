//go:build amd64 || arm64

package shim_test

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"io"
	"os"
	"strconv"
	"syscall"
	"testing"

	"github.com/gracerun/grace/childproc/memfd"
	"github.com/gracerun/grace/childproc/shim"
	"golang.org/x/sys/unix"
)

func TestStubIsSmallAndNotWritable(t *testing.T) {
	file, err := elf.NewFile(bytes.NewReader(shim.Stub()))
	if err != nil {
		t.Fatal(err)
	}
	if len(shim.Stub()) > 1024 {
		t.Errorf("it has %d bytes", len(shim.Stub()))
	}
	for _, p := range file.Progs {
		if p.Flags&elf.PF_X != 0 && (p.Flags&elf.PF_W != 0 || file.Entry < p.Vaddr || file.Entry >= p.Vaddr+p.Filesz) {
			t.Errorf("%+v, entry %#x", p.ProgHeader, file.Entry)
		}
	}
}

// started is a shim with a connection to it.
type started struct {
	pid  int
	conn *os.File
}

// forms are the stub and the copy of a program: which of them it is changes nothing.
func forms(t *testing.T) map[string]string {
	t.Helper()
	stub, err := memfd.Executable("stub", shim.Stub())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(stub) })
	return map[string]string{"stub": "/proc/" + strconv.Itoa(os.Getpid()) + "/fd/" + strconv.Itoa(stub), "copy": "/proc/self/exe"}
}

// start gives the shim its connection as stdin and as descriptor 3.
func start(t *testing.T, path string) started {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[1])
	theirs := uintptr(pair[1])
	pid, err := syscall.ForkExec(path, []string{shim.Name}, &syscall.ProcAttr{Files: []uintptr{theirs, 1, 2, theirs}})
	if err != nil {
		t.Fatal(err)
	}
	return started{pid, os.NewFile(uintptr(pair[0]), "connection")}
}

func (s started) send(t *testing.T, l *shim.List) {
	t.Helper()
	text, err := l.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.conn.Write(text); err != nil {
		t.Fatal(err)
	}
}

func (s started) end(t *testing.T) syscall.WaitStatus {
	t.Helper()
	s.conn.Close()
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(s.pid, &status, 0, nil); err != nil {
		t.Fatal(err)
	}
	return status
}

func (s started) read(t *testing.T, n int) []byte {
	t.Helper()
	text := make([]byte, n)
	if _, err := io.ReadFull(s.conn, text); err != nil {
		t.Fatal(err)
	}
	return text
}

// writing has a shim write what a call has given.
func writing(l *shim.List, number uintptr, arguments ...uintptr) {
	result := l.Bytes(make([]byte, 8))
	l.Call("call", number, arguments...)
	l.StoreResult(result)
	l.Call("write", unix.SYS_WRITE, 3, result, 8)
}

func TestListIsCarriedOut(t *testing.T) {
	for name, path := range forms(t) {
		s := start(t, path)
		l := shim.NewList(3)
		l.Call("close", unix.SYS_CLOSE, 0) // the connection is elsewhere by now
		l.Bytes(make([]byte, 1<<20))       // more than a connection holds
		writing(l, unix.SYS_GETPID)
		writing(l, unix.SYS_FCNTL, 3, unix.F_GETFD)
		s.send(t, l)
		if pid := binary.NativeEndian.Uint64(s.read(t, 8)); pid != uint64(s.pid) {
			t.Errorf("%s: process %d is %d", name, s.pid, pid)
		}
		if flags := binary.NativeEndian.Uint64(s.read(t, 8)); flags != 0 {
			t.Errorf("%s: flags %d", name, flags)
		}
		if status := s.end(t); status.ExitStatus() != shim.StatusFailed {
			t.Errorf("%s: it ends with %#x", name, status)
		}
	}
}

func TestFailureIsReported(t *testing.T) {
	for name, path := range forms(t) {
		s := start(t, path)
		l := shim.NewList(3)
		l.Call("umask", unix.SYS_UMASK, 0o22)
		l.Call("close", unix.SYS_CLOSE, 99)
		l.Call("write", unix.SYS_WRITE, 3, l.String("never"), 5)
		s.send(t, l)
		text, err := io.ReadAll(s.conn)
		call, errno, ok := shim.ParseReport(text)
		if err != nil || !ok || l.Step(call) != "close" || errno != unix.EBADF {
			t.Errorf("%s: %q, %v: call %d, %v", name, text, err, call, errno)
		}
		if status := s.end(t); status.ExitStatus() != shim.StatusFailed {
			t.Errorf("%s: it ends with %#x", name, status)
		}
	}
}

// The digits come after a prefix that ends anywhere.
func TestListsHaveTheShimsOwnNumber(t *testing.T) {
	for name, path := range forms(t) {
		s := start(t, path)
		l := shim.NewList(3)
		want := ""
		for _, prefix := range []string{"", "PID=", "LISTEN_PID="} {
			text := prefix + strconv.Itoa(s.pid)
			want += text + "\x00"
			l.Call("write", unix.SYS_WRITE, 3, l.PID(prefix), uintptr(len(text)+1))
		}
		s.send(t, l)
		if got := string(s.read(t, len(want))); got != want {
			t.Errorf("%s: %q, not %q", name, got, want)
		}
		s.end(t)
	}
}
