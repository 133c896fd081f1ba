package reexec

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/gracerun/grace/childproc/memfd"
	"golang.org/x/sys/unix"
)

// socketPair is a connection between two grace processes: what the old one leaves waits in it.
type socketPair struct{ ours, theirs int }

func openSocketPair() (socketPair, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return socketPair{-1, -1}, fmt.Errorf("cannot create a connection to the new grace process: %w", err)
	}
	return socketPair{pair[0], pair[1]}, nil
}

// close also lets go of what nobody has taken: copies of an end may stay open in a
// process that failed, and would keep the snapshot alive.
func (l socketPair) close() {
	buffer := make([]byte, longestMessage)
	for {
		if n, _, err := unix.Recvfrom(l.theirs, buffer, unix.MSG_DONTWAIT); n <= 0 && err != unix.EINTR {
			break
		}
	}
	unix.Close(l.ours)
	unix.Close(l.theirs)
}

const (
	// atOnce is how many descriptors a message takes (SCM_MAX_FD).
	atOnce         = 253
	longestMessage = 64 << 10
	// sendSeconds: what nobody reads yet has to fit into the socket.
	sendSeconds = 5
)

// leave puts a snapshot into the socket: first a memfd with the document, which is never on a
// disk, with the descriptors' numbers as its text; then the descriptors.
func (l socketPair) leave(e Snapshot) error {
	document, err := memfd.Sealed("grace-state", e.Document)
	if err != nil {
		return fmt.Errorf("cannot write grace's state: %w", err)
	}
	defer unix.Close(document)
	if err := unix.SetsockoptTimeval(l.ours, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Sec: sendSeconds}); err != nil {
		return err
	}
	if err := send(l.ours, joined(e.Files), document); err != nil {
		return fmt.Errorf("cannot hand over grace's state: %w", err)
	}
	for rest := e.Files; len(rest) > 0; {
		n := min(len(rest), atOnce)
		if err := send(l.ours, "files", rest[:n]...); err != nil {
			return fmt.Errorf("cannot hand over %d descriptors: %w", len(e.Files), err)
		}
		rest = rest[n:]
	}
	return nil
}

func send(conn int, text string, fds ...int) error {
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	for {
		// With a time limit the kernel does not begin anew after a signal of Go's own (signal(7)).
		if err := unix.Sendmsg(conn, []byte(text), rights, nil, unix.MSG_NOSIGNAL); err != unix.EINTR {
			return err
		}
	}
}

func joined(numbers []int) string {
	words := make([]string, len(numbers))
	for i, n := range numbers {
		words[i] = strconv.Itoa(n)
	}
	return strings.Join(words, " ") + "\n"
}

// inherit takes a snapshot from the socket: for each descriptor of the predecessor the one
// here, close-on-exec.
func inherit(conn int) (document []byte, files map[int]int, err error) {
	text, fds, err := receive(conn)
	if err == nil && len(fds) != 1 {
		err = fmt.Errorf("got %d state files instead of 1", len(fds))
	}
	if err != nil {
		return nil, nil, fmt.Errorf("cannot receive the state of the old grace process: %w", err)
	}
	file := os.NewFile(uintptr(fds[0]), "state")
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, nil, fmt.Errorf("cannot read the state of the old grace process: %w", err)
	}
	document = make([]byte, info.Size())
	if _, err := file.ReadAt(document, 0); err != nil {
		return nil, nil, fmt.Errorf("cannot read the state of the old grace process: %w", err)
	}
	files, err = inheritFiles(conn, strings.Fields(text))
	return document, files, err
}

func inheritFiles(conn int, numbers []string) (map[int]int, error) {
	files := make(map[int]int, len(numbers))
	for len(files) < len(numbers) {
		_, fds, err := receive(conn)
		if err == nil && (len(fds) == 0 || len(files)+len(fds) > len(numbers)) {
			err = fmt.Errorf("got %d descriptors after %d of %d", len(fds), len(files), len(numbers))
		}
		if err != nil {
			return nil, fmt.Errorf("cannot receive the descriptors of the old grace process: %w", err)
		}
		for _, here := range fds {
			there, err := strconv.Atoi(numbers[len(files)])
			if err != nil {
				return nil, fmt.Errorf("cannot decode the state of the old grace process: %w", err)
			}
			files[there] = here
		}
	}
	return files, nil
}

func receive(conn int) (string, []int, error) {
	text, control := make([]byte, longestMessage), make([]byte, unix.CmsgSpace(4*atOnce))
	for {
		n, used, flags, _, err := unix.Recvmsg(conn, text, control, unix.MSG_CMSG_CLOEXEC)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return "", nil, err
		case n == 0:
			return "", nil, errors.New("the old grace process has ended")
		case flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0:
			return "", nil, errors.New("a message was truncated (the limit of open files may be reached: see ulimit -n)")
		}
		fds, err := rights(control[:used])
		return string(text[:n]), fds, err
	}
}

func rights(control []byte) ([]int, error) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil || len(messages) == 0 {
		return nil, err
	}
	return unix.ParseUnixRights(&messages[0])
}
