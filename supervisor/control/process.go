package control

import (
	"context"
	"fmt"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

const lookInterval = 50 * time.Millisecond

// Process is the grace process behind a control socket, whose end can be waited for.
type Process struct {
	PID   int // 0: of another pid namespace
	path  string
	pidfd int // -1: of another pid namespace
}

// Watch finds the process that listens at path. The caller closes it.
func Watch(ctx context.Context, path string) (*Process, error) {
	conn, err := dial(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("cannot reach grace at %s: %w", path, err)
	}
	defer conn.Close()
	p := &Process{path: path, pidfd: -1}
	if _, pid, err := credentials(conn.(*net.UnixConn)); err == nil && pid > 0 {
		p.PID = pid
		if fd, err := unix.PidfdOpen(pid, 0); err == nil {
			p.pidfd = fd
		}
	}
	return p, nil
}

// Wait returns when the process has ended, or, where that cannot be seen, when nobody
// listens any more; or with the error of ctx.
func (p *Process) Wait(ctx context.Context) error {
	for !p.ended() {
		if p.pidfd < 0 {
			time.Sleep(lookInterval)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

func (p *Process) ended() bool {
	if p.pidfd < 0 {
		return !(&Found{Path: p.path}).answers()
	}
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(p.pidfd), Events: unix.POLLIN}}, int(lookInterval.Milliseconds()))
	return n > 0 && err == nil
}

// Close gives the descriptor back.
func (p *Process) Close() error {
	if p.pidfd < 0 {
		return nil
	}
	return unix.Close(p.pidfd)
}
