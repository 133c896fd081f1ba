package handoff

import (
	"errors"
	"fmt"
	"os"

	"github.com/gracerun/grace/handoff/internal/inherited"
	"github.com/gracerun/grace/handoff/internal/tableflip"
	"golang.org/x/sys/unix"
)

// addTableflip takes the sockets that follow the two pipes, and the pipe that Ready writes to. The names are left
// unread, since sockets are found by where they are bound, and with them their pipe stays open: a parent that is
// tableflip itself may not have written them yet. Without a socket nothing is taken: the library has been here before
// (it sets the sockets close-on-exec, and not the pipes), or the variable is another process's.
func (i *inheritance) addTableflip(getenv func(string) string) {
	const ready, names = inherited.FirstFile, inherited.FirstFile + 1
	if getenv(tableflip.Variable) == "" || !isPipe(ready, unix.O_WRONLY) || !isPipe(names, unix.O_RDONLY) {
		return
	}
	found := false
	for fd := tableflip.FirstFile; inherited.IsOpen(fd); fd++ {
		found = i.add(inherited.Socket{Number: fd, FD: fd}) || found
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

// sayReady tells a parent that listens for it as tableflip does, once.
func (i *inheritance) sayReady() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.parent == nil {
		return nil
	}
	_, err := i.parent.Write([]byte{tableflip.Ready})
	err = errors.Join(err, i.parent.Close())
	i.parent = nil
	if err != nil {
		return fmt.Errorf("cannot report readiness through tableflip's pipe: %w", err)
	}
	return nil
}
