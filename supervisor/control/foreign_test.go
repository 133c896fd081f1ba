package control

import (
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// What another user's process answers must cost root's command no more than a bounded part of its memory.
func TestEndlessAnswerIsCut(t *testing.T) {
	for name, beginning := range map[string]string{"a status": `{"name":"`, "blank space": ""} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "web.sock")
			l, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			written := 0
			served := make(chan struct{})
			server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				defer close(served)
				_, err := io.WriteString(w, beginning)
				for chunk := strings.Repeat(" ", 1<<16); err == nil && written < 1<<30; {
					_, err = io.WriteString(w, chunk)
					written += len(chunk)
				}
			})}
			go server.Serve(l)
			defer server.Close()
			if _, err := client(t, path).Status(t.Context()); err == nil || !strings.Contains(err.Error(), "more than") {
				t.Errorf("got %v", err)
			}
			<-served
			if written > 4*maxLine {
				t.Errorf("%d bytes were taken", written)
			}
		})
	}
}

// listenAs has the kernel name another user as the one who listens.
func listenAs(t *testing.T, uid int) (path string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can be another user")
	}
	path = filepath.Join(t.TempDir(), "web.sock")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread() // whose user alone is changed by the bare calls
	defer runtime.UnlockOSThread()
	const same = ^uintptr(0)
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, same, uintptr(uid), same); errno != 0 {
		t.Fatal(errno)
	}
	err = unix.Listen(fd, 8)
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, same, 0, same); errno != 0 {
		panic(errno)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestStrangerIsNotAsked(t *testing.T) {
	path := listenAs(t, 1234)
	if _, err := client(t, path).Status(t.Context()); !errors.Is(err, errOtherUser) {
		t.Errorf("another user at root's socket: %v", err)
	}
	if (&Found{Path: path}).answers() {
		t.Error("another user's listener counts as a grace process")
	}
	if err := os.Chown(path, 1234, 1234); err != nil {
		t.Fatal(err)
	}
	if !(&Found{Path: path}).answers() {
		t.Error("root cannot see a user's grace process")
	}
}

func TestUnprintablePathsAreNotSearched(t *testing.T) {
	t.Setenv("RUNTIME_DIRECTORY", "/run/a\n/run/b")
	for _, dir := range searchDirs() {
		if strings.Contains(dir, "\n") {
			t.Errorf("searched: %q", dir)
		}
	}
}
