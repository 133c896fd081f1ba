package handoff

import (
	"bytes"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	tableflipVariable = "TABLEFLIP_HAS_PARENT_7DIU3"
	tableflipReady    = 42
)

// tellTableflip plays the parent of github.com/cloudflare/tableflip: descriptor 3 takes the byte 42, descriptor 4
// gives the sockets' keys and ends when the parent has exited. An app finds its socket by the network and address it
// writes itself, so the words of --listen have to be the same.
func tellTableflip(g *Grant, _ Issue, sockets []Socket) error {
	ready, readyEnd, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("cannot create the pipes of tableflip: %w", err)
	}
	g.ready, g.given = ready, append(g.given, readyEnd)
	namesEnd, names, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("cannot create the pipes of tableflip: %w", err)
	}
	g.Predecessor, g.given = names, append(g.given, namesEnd)
	if err := writeKeys(names, sockets); err != nil {
		return fmt.Errorf("cannot send tableflip the names of %d sockets: %w", len(sockets), err)
	}
	g.Files = append(g.Files, int(readyEnd.Fd()), int(namesEnd.Fd()))
	g.set(tableflipVariable, "yes")
	return nil
}

func writeKeys(pipe *os.File, sockets []Socket) error {
	keys := make([][]string, len(sockets))
	for i, s := range sockets {
		kind := "listener"
		if s.Network == "unixgram" || strings.HasPrefix(s.Network, "udp") {
			kind = "packet"
		}
		keys[i] = []string{kind, s.Network, s.Addr}
	}
	var text bytes.Buffer
	if err := gob.NewEncoder(&text).Encode(keys); err != nil {
		return err
	}
	return writeOnce(pipe, text.Bytes())
}

// writeOnce does not wait for room: nobody reads the pipe yet.
func writeOnce(pipe *os.File, text []byte) error {
	conn, err := pipe.SyscallConn()
	if err != nil {
		return err
	}
	var n int
	var failed error
	err = conn.Write(func(fd uintptr) bool {
		n, failed = unix.Write(int(fd), text)
		return true
	})
	if err == nil && failed == nil && n < len(text) {
		return io.ErrShortWrite
	}
	return errors.Join(err, failed)
}

// addTableflip takes the sockets that follow the two pipes, and the pipe that Ready writes to. The names are left
// unread, since sockets are found by where they are bound, and with them their pipe stays open: a parent that is
// tableflip itself may not have written them yet. Without a socket nothing is taken: the library has been here before
// (it sets the sockets close-on-exec, and not the pipes), or the variable is another process's.
func (i *inheritance) addTableflip(getenv func(string) string) {
	const ready, names = firstFile, firstFile + 1
	if getenv(tableflipVariable) == "" || !isPipe(ready, unix.O_WRONLY) || !isPipe(names, unix.O_RDONLY) {
		return
	}
	found := false
	for fd := firstTableflipFile; isOpen(fd); fd++ {
		found = i.add(inheritedSocket{number: fd, fd: fd}) || found
	}
	if !found {
		return
	}
	unix.CloseOnExec(ready)
	unix.CloseOnExec(names)
	i.parent = os.NewFile(ready, "tableflip's ready pipe")
}

func isPipe(fd, access int) bool {
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil || stat.Mode&unix.S_IFMT != unix.S_IFIFO {
		return false
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	return err == nil && flags&unix.O_ACCMODE == access
}

func isOpen(fd int) bool {
	_, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	return err == nil
}

// sayReady tells a parent that listens for it as tableflip does, once.
func (i *inheritance) sayReady() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.parent == nil {
		return nil
	}
	_, err := i.parent.Write([]byte{tableflipReady})
	err = errors.Join(err, i.parent.Close())
	i.parent = nil
	if err != nil {
		return fmt.Errorf("cannot report readiness through tableflip's pipe: %w", err)
	}
	return nil
}
