package gracelog

import (
	"os"
	"os/exec"
	"syscall"
	"time"
)

// Follow starts a command and calls each for every line of its stdout and stderr. The channel is closed when no process has
// them any more.
func Follow(cmd *exec.Cmd, each func(Entry)) (ended <-chan struct{}, err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = w, w
	err = cmd.Start()
	w.Close()
	if err != nil {
		r.Close()
		return nil, err
	}
	end := make(chan struct{})
	go func() {
		defer close(end)
		defer r.Close()
		_ = Read(r, each) // a line that is too long ends it
	}()
	return end, nil
}

// Process is a running command that logs as grace does.
type Process struct {
	Cmd    *exec.Cmd
	Log    <-chan Entry  // closed at the end of its output, which other processes may have as well
	Exited chan struct{} // closed when the command has exited
	exit   error         // how, from then on
}

// Start starts a command. The caller reads the log and stops the process.
func Start(cmd *exec.Cmd) (*Process, error) {
	log := make(chan Entry, 1000)
	ended, err := Follow(cmd, func(e Entry) { log <- e })
	if err != nil {
		return nil, err
	}
	p := &Process{Cmd: cmd, Log: log, Exited: make(chan struct{})}
	go func() {
		<-ended
		close(log)
	}()
	go func() {
		defer close(p.Exited)
		p.exit = cmd.Wait()
	}()
	return p, nil
}

// Stop ends the process by SIGTERM, or by SIGKILL when patience is over, and returns how it exited. What it logs is dropped.
func (p *Process) Stop(patience time.Duration) error {
	_ = p.Cmd.Process.Signal(syscall.SIGTERM) // it may have exited
	kill := time.AfterFunc(patience, func() { p.Cmd.Process.Kill() })
	defer kill.Stop()
	for log := p.Log; ; {
		select {
		case _, more := <-log:
			if !more {
				log = nil
			}
		case <-p.Exited:
			return p.exit
		}
	}
}
