package capture

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"

	"golang.org/x/sys/unix"
)

// Path is the file that bind or unlink was called with, as the process has named it, but absolute. It is empty where
// there is none: for bind with an address that is no path of a unix socket, for unlinkat of a directory. Where
// the app gave none that can be read the error is that which it will get itself.
func (c Call) Path() (string, error) {
	if c.Syscall() == Bind {
		return c.socketPath()
	}
	dir, address := unix.AT_FDCWD, c.args[0]
	if c.number == unix.SYS_UNLINKAT {
		dir, address = int(int32(c.args[0])), c.args[1]
		if c.args[2]&unix.AT_REMOVEDIR != 0 {
			return "", nil
		}
	}
	name, err := c.readPath(address)
	if err == nil {
		name, err = c.absolute(dir, name)
	}
	if err != nil {
		return "", c.failed("read the path", err)
	}
	return name, nil
}

func (c Call) socketPath() (string, error) {
	address, err := c.Addr()
	if err != nil || len(address) < 3 || binary.NativeEndian.Uint16(address) != unix.AF_UNIX || address[2] == 0 {
		return "", err
	}
	name, _, _ := bytes.Cut(address[2:], []byte{0})
	absolute, err := c.absolute(unix.AT_FDCWD, string(name))
	if err != nil {
		return "", c.failed("read the path", err)
	}
	return absolute, nil
}

func (c Call) absolute(dir int, name string) (string, error) {
	if path.IsAbs(name) || name == "" {
		return name, nil
	}
	link := c.proc("cwd")
	if dir != unix.AT_FDCWD {
		link = c.proc("fd/" + strconv.Itoa(dir))
	}
	folder, err := os.Readlink(link)
	return folder + "/" + name, err
}

func (c Call) readPath(address uint64) (string, error) {
	memory, err := os.Open(c.proc("mem"))
	if err != nil {
		return "", err
	}
	defer memory.Close()
	text := make([]byte, unix.PathMax)
	n, err := memory.ReadAt(text, int64(address)) // it ends where nothing is mapped
	name, _, ended := bytes.Cut(text[:n], []byte{0})
	switch {
	case ended:
		return string(name), nil
	case err != nil && err != io.EOF:
		return "", unix.EFAULT
	}
	return "", unix.ENAMETOOLONG
}

// Umask is what the process's files are made with.
func (c Call) Umask() (uint32, error) {
	text, err := os.ReadFile(c.proc("status"))
	if err != nil || !c.Valid() {
		return 0, c.failed("read the umask", err)
	}
	value, _ := field(text, "Umask:")
	mask, err := strconv.ParseUint(value, 8, 32)
	if err != nil {
		return 0, fmt.Errorf("cannot read the umask of process %d: %w", c.PID(), err)
	}
	return uint32(mask), nil
}
