package childproc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// afterEnd is how long output may still come from processes that an ended command has moved out of reach.
const afterEnd = time.Second

// Output runs a command to its end and gives the last of what it wrote to stdout and stderr together, limit bytes at
// most. When ctx is done, the command's process group is killed and ctx's cause is returned. spec's Stdout and Stderr
// are not used.
func (r *Reaper) Output(ctx context.Context, spec Spec, limit int) ([]byte, Exit, error) {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return nil, Exit{}, fmt.Errorf("cannot create a pipe for the command's output: %w", err)
	}
	reader, err := pollable(pipe[0])
	if err != nil {
		closeAll(pipe[:])
		return nil, Exit{}, err
	}
	defer reader.Close()
	spec.Stdout, spec.Stderr = pipe[1], pipe[1]
	p, err := r.Start(spec)
	closeAll(pipe[1:])
	if err != nil {
		return nil, Exit{}, err
	}
	tail := make(chan []byte, 1)
	go func() { tail <- readTail(reader, limit) }()
	exit, err := p.waitOrKill(ctx)
	reader.SetReadDeadline(time.Now().Add(afterEnd))
	return <-tail, exit, err
}

// pollable makes a descriptor a file whose reads can have a deadline.
func pollable(fd int) (*os.File, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, fmt.Errorf("cannot create a pipe for the command's output: %w", err)
	}
	return os.NewFile(uintptr(fd), "command's output"), nil
}

// waitOrKill waits for the process, ends what it has left behind, and reaps it.
func (p *Process) waitOrKill(ctx context.Context) (Exit, error) {
	ended := make(chan struct{})
	killer := make(chan error, 1)
	go func() { killer <- p.killWhenDone(ctx, ended) }()
	exit, err := p.Wait()
	close(ended)
	err = errors.Join(err, <-killer, p.SignalGroup(syscall.SIGKILL), p.EndRest())
	if err == nil {
		err = context.Cause(ctx)
	}
	return exit, err
}

func (p *Process) killWhenDone(ctx context.Context, ended <-chan struct{}) error {
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return p.SignalGroup(syscall.SIGKILL)
	}
}

// readTail ends with the last writer, or with the deadline.
func readTail(r io.Reader, limit int) []byte {
	var tail []byte
	buffer := make([]byte, 4096)
	for {
		n, err := r.Read(buffer)
		tail = append(tail, buffer[:n]...)
		tail = tail[max(0, len(tail)-limit):]
		if err != nil {
			return tail
		}
	}
}
