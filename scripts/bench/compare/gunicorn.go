package compare

import (
	"fmt"
	"syscall"
	"time"
)

func gunicornHUP() tool {
	return tool{
		name: "gunicorn HUP", about: "one gthread worker with 16 threads and a WSGI app, HUP: a new worker loads the app anew",
		endings: []ending{byItself}, faults: everyFault, needs: []need{{"gunicorn", "gunicorn"}}, bare: gunicornCommand,
		start: func(p *place, s server) (running, error) {
			return p.startSignalled(syscall.SIGHUP, gunicornCommand(p, s))
		},
	}
}

func gunicornCommand(p *place, s server) []string {
	if err := p.install("wsgi.py", "DELAY", fmt.Sprint(s.delay.Seconds())); err != nil {
		fmt.Fprintln(p.log, err) // gunicorn says then that it has no app
	}
	return []string{"gunicorn", "--chdir", p.dir, "-b", p.address, "-k", "gthread", "-w", "1", "--threads", "16", "--keep-alive", "30",
		"--graceful-timeout", fmt.Sprint(int(granted / time.Second)), "wsgi:app"}
}
