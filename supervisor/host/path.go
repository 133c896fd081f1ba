package host

import (
	"errors"
	"syscall"

	"github.com/gracerun/grace/childproc/capture"
	"github.com/gracerun/grace/handoff/socket"
	"golang.org/x/sys/unix"
)

// path is the declared one that a bind is for, or empty.
func (c *captureHandler) path(call capture.Call) string {
	if len(c.apps.Options.CaptureUnix) == 0 {
		return ""
	}
	path, err := call.Path()
	if err != nil || !c.apps.Steering.Declared(path) {
		return ""
	}
	return path
}

// bindPath binds the app's socket beside the path that another generation has.
func (c *captureHandler) bindPath(call capture.Call, path string) error {
	fd, err := call.Duplicate()
	if err != nil {
		return c.pass(call, err)
	}
	defer unix.Close(fd)
	take := func() (int, error) { return c.apps.Steering.TakePath(c.app.member(), fd, path) }
	if succeeded, err := c.succeed(call, take); succeeded || err != nil {
		return err
	}
	umask, err := call.Umask()
	if err != nil {
		return c.pass(call, err)
	}
	bound := false
	err = c.apps.withEviction(func() (err error) {
		bound, err = c.apps.Steering.BindPath(c.app.member(), fd, path, umask)
		return err
	})
	c.apps.noteChange()
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		c.tellInUse(err)
	case err != nil:
		c.tell("the app cannot bind", err)
	}
	errno := syscall.Errno(0)
	if bound || errors.As(err, &errno) {
		return call.Return(errno)
	}
	return call.Continue()
}

// unlink keeps the paths that clients use: servers remove theirs before they bind,
// and when they end.
func (c *captureHandler) unlink(call capture.Call) error {
	path, err := call.Path()
	if err != nil || path == "" {
		return call.Continue()
	}
	if err := c.takeOverPath(path); err != nil {
		c.tellInUse(err)
		return call.Return(syscall.EBUSY)
	}
	if c.apps.Steering.Keeps(path) {
		return call.Return(0)
	}
	return call.Continue()
}

// takeOverPath comes before the app binds: it is about to remove the path of the server that it is to replace.
func (c *captureHandler) takeOverPath(path string) error {
	if !c.apps.Takeover.wanted() || !c.apps.Steering.Declared(path) || c.apps.Steering.Keeps(path) {
		return nil
	}
	inUse, err := socket.Occupied(socket.Address{Network: "unix", Addr: path})
	if err != nil || inUse == nil {
		return nil // nobody has it, as far as can be seen
	}
	return c.apps.evict(inUse)
}
