package compare

import (
	"fmt"
	"strconv"
	"syscall"
)

// haproxy is a proxy: its backend stays.
type haproxy struct {
	*signalled
	end ending
}

func haproxyReload() tool {
	return tool{
		name: "haproxy reload", about: "haproxy as a proxy of an app that stays, master and worker (`-W`), USR2; `drain` has `option idle-close-on-response`",
		endings: []ending{byDrain, byShutdown}, faults: []fault{crashes}, needs: []need{{"haproxy", "haproxy"}},
		bare: func(p *place, s server) []string { return haproxyCommand(p, s, "-db") },
		start: func(p *place, s server) (running, error) {
			c, err := p.run(haproxyCommand(p, s, "-W"))
			if err != nil {
				return nil, err
			}
			return &haproxy{&signalled{p, c, syscall.SIGUSR2}, s.end}, nil
		},
	}
}

func haproxyCommand(p *place, s server, mode string) []string {
	h := &haproxy{&signalled{place: p}, s.end}
	if err := h.deploy(version{number: 1}); err != nil {
		fmt.Fprintln(p.log, err) // haproxy says then that it has no configuration
	}
	return []string{"haproxy", mode, "-f", p.path("haproxy.cfg")}
}

// deploy writes a configuration. One that crashes has a line that haproxy does not know.
func (h *haproxy) deploy(v version) error {
	option, broken := "", ""
	if h.end == byDrain {
		option = "option idle-close-on-response"
	}
	if v.fault == crashes {
		broken = "this-is-no-keyword"
	}
	return h.install("haproxy.cfg", "VERSION", strconv.Itoa(v.number), "OPTION", option, "FAULT", broken)
}
