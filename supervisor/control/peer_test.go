package control

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Somebody has made the socket accessible, or handed a connection on.
func TestAnotherUserIsRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root: cannot be somebody else")
	}
	b, lasting := &backend{}, defaultLimits
	lasting.idle = time.Hour
	path, _ := started(t, b, lasting)
	if err := errors.Join(os.Chmod(path, 0o666), openTo(path)); err != nil {
		t.Fatal(err)
	}
	conn := connectAs(t, path, 65534)
	if _, err := io.WriteString(conn, "POST /v1/stop HTTP/1.1\r\nHost: grace\r\nContent-Length: 0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	checkResponse(t, conn, 403, "user 65534 may not control a grace process of user 0")
	if _, err := io.Copy(io.Discard, conn); err != nil && !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("the connection has not ended: %v", err)
	}
	if len(b.requests()) != 0 {
		t.Error("it was heard")
	}
}

// openTo lets everybody through to a path in a folder of the test's.
func openTo(path string) error {
	var err error
	for dir := filepath.Dir(path); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		err = errors.Join(err, os.Chmod(dir, 0o755))
	}
	return err
}

// connectAs connects from a thread that belongs to uid, and ends afterwards.
func connectAs(t *testing.T, path string, uid uintptr) net.Conn {
	t.Helper()
	type connected struct {
		fd  int
		err error
	}
	result := make(chan connected)
	go func() {
		runtime.LockOSThread()
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uid, uid, uid); errno != 0 {
			result <- connected{-1, errno}
			return
		}
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
		}
		result <- connected{fd, err}
	}()
	c := <-result
	if c.err != nil {
		t.Fatal(c.err)
	}
	file := os.NewFile(uintptr(c.fd), path)
	defer file.Close()
	conn, err := net.FileConn(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return conn
}
