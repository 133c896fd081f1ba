package compare

import "syscall"

// flipped is an app that replaces itself: no process stays.
type flipped struct {
	*place
	first *process
}

func tableflipTool() tool {
	return tool{
		name: "tableflip", about: "the app replaces itself by this library on HUP, as its documentation shows it; no process stays",
		endings: everyEnding, faults: everyFault, bare: bareApp,
		start: func(p *place, s server) (running, error) {
			c, err := p.run(p.goApp(s, "-tableflip"))
			if err != nil {
				return nil, err
			}
			return &flipped{p, c}, nil
		},
	}
}

// upgrade signals the process that answers: the one that a pid file would name.
func (f *flipped) upgrade() error {
	a, err := ask(f.address)
	if err != nil {
		return err
	}
	return syscall.Kill(a.pid, syscall.SIGHUP)
}

func (f *flipped) supervisor() int { return 0 }
func (f *flipped) stop()           {}
