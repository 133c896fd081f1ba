package compare

import (
	"fmt"
	"syscall"
)

// overlapped is a server that a script starts beside the old one.
type overlapped struct {
	*place
	server
	current *process
}

func reusePort() tool {
	return tool{
		name: "SO_REUSEPORT overlap", about: "a script: starts the new process beside the old one, both with `SO_REUSEPORT`, waits until it answers, and sends the old one TERM",
		endings: everyEnding, faults: everyFault, bare: bareApp,
		start: func(p *place, s server) (running, error) {
			c, err := p.run(p.goApp(s, "-reuseport"))
			if err != nil {
				return nil, err
			}
			return &overlapped{p, s, c}, nil
		},
	}
}

// upgrade gives up on a process that does not answer, as a careful script does.
func (o *overlapped) upgrade() error {
	c, err := o.run(o.goApp(o.server, "-reuseport"))
	if err != nil {
		return err
	}
	isNew := func(a answer) bool { return a.pid == c.Process.Pid }
	if _, err := await(o.address, isNew, readyTime, c.ended); err != nil {
		c.end(syscall.SIGKILL, granted)
		return fmt.Errorf("the new process does not serve: %w", err)
	}
	old := o.current
	o.current = c
	return old.signal(syscall.SIGTERM)
}

func (o *overlapped) supervisor() int { return 0 }
func (o *overlapped) stop()           { o.current.end(syscall.SIGTERM, granted) }
