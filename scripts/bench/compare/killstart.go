package compare

import (
	"syscall"
	"time"
)

// restarted is a server that is stopped before it is started again.
type restarted struct {
	*place
	server
	current *process
}

func killAndStart() tool {
	return tool{
		name: "kill and start", about: "TERM, KILL after 2.2 s, and a start: what happens without a tool",
		endings: []ending{byShutdown, byDying}, faults: everyFault, bare: bareApp,
		start: func(p *place, s server) (running, error) {
			c, err := p.run(p.goApp(s))
			if err != nil {
				return nil, err
			}
			return &restarted{p, s, c}, nil
		},
	}
}

func (r *restarted) upgrade() (err error) {
	r.current.end(syscall.SIGTERM, granted+200*time.Millisecond) // a little more than the app itself takes at most
	r.current, err = r.run(r.goApp(r.server))
	return err
}

func (r *restarted) supervisor() int { return 0 }
func (r *restarted) stop()           { r.current.end(syscall.SIGTERM, granted) }
