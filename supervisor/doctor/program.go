package doctor

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/gracerun/grace/handoff"
	"golang.org/x/sys/unix"
)

// How a test app gets its listener.
const (
	withHeld     = "held"     // as descriptor 3
	withCaptured = "captured" // by itself
)

// testAppReport is what a test app says when it serves, as a line of JSON.
type testAppReport struct {
	LowPort syscall.Errno // of a bind to lowPort
	Notify  string        // why READY=1 could not be sent
}

// RunTestApp is the app that Examine starts. It answers each connection with a byte,
// until its stdin ends.
func RunTestApp(how string) error {
	fd, s := 3, testAppReport{}
	if how == withCaptured {
		var err error
		if fd, err = listenLocally(); err != nil {
			return err
		}
	} else {
		s.LowPort = bindLow()
	}
	if err := handoff.Ready(); err != nil {
		s.Notify = err.Error()
	}
	go serve(fd)
	if err := json.NewEncoder(os.Stdout).Encode(s); err != nil {
		return fmt.Errorf("cannot answer the doctor: %w", err)
	}
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

// serve blocks in accept, where it can be seen waiting. It ends with the process.
func serve(listener int) {
	for {
		conn, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return
		}
		_, _ = unix.Write(conn, []byte{1}) // the doctor notices
		// The doctor closes first: until then the connection is there to be counted.
		_, _ = unix.Read(conn, make([]byte, 1))
		unix.Close(conn)
	}
}

var loopback = [4]byte{127, 0, 0, 1}

// listenLocally makes a listener on a port that the kernel chooses.
func listenLocally() (int, error) {
	fd, err := bindLocally(0)
	if err != nil {
		return -1, err
	}
	if err := unix.Listen(fd, unix.SOMAXCONN); err != nil {
		return -1, errors.Join(fmt.Errorf("cannot listen on 127.0.0.1: %w", err), unix.Close(fd))
	}
	return fd, nil
}

// bindLocally makes a socket of the kind that can share its address.
func bindLocally(port int) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("cannot create a socket: %w", err)
	}
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrInet4{Addr: loopback, Port: port})
	}
	if err != nil {
		return -1, errors.Join(fmt.Errorf("cannot bind 127.0.0.1: %w", err), unix.Close(fd))
	}
	return fd, nil
}

// lowPort stands for all below 1024.
const lowPort = 80

// bindLow binds the port for a moment, at an address and in a way that keeps
// nobody from it: sockets with SO_REUSEADDR collide only once they listen. The
// right is looked at before the port, so EADDRINUSE tells that it is there
// (__inet_bind in net/ipv4/af_inet.c).
func bindLow() syscall.Errno {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		defer unix.Close(fd)
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 83, 71, 61}, Port: lowPort})
	}
	errno, _ := err.(syscall.Errno)
	if errno == unix.EADDRINUSE {
		return 0
	}
	return errno
}
