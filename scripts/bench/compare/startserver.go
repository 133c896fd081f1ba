package compare

import (
	"slices"
	"syscall"
)

func startServer() tool {
	return tool{
		name: "start_server", about: "Perl's Server::Starter, HUP; the app takes the socket from `SERVER_STARTER_PORT`",
		endings: everyEnding, faults: everyFault, needs: []need{{"start_server", "libserver-starter-perl"}}, bare: bareApp,
		start: func(p *place, s server) (running, error) {
			return p.startSignalled(syscall.SIGHUP, slices.Concat([]string{"start_server", "--port", p.address, "--"}, p.goApp(s)))
		},
	}
}
