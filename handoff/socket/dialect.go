package socket

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/gracerun/grace/handoff/internal/inherited"
	"github.com/gracerun/grace/handoff/internal/tableflip"
	"golang.org/x/sys/unix"
)

// heldSocket is a held socket as an app gets to know it.
type heldSocket struct {
	name    string // the listener's name
	network string // as in Address
	addr    string // as it was written
	bound   string // as it came out: IP:port, path or @name
	fd      int    // its number in the app
}

// Dialects are the conventions by which one app is told about its sockets. The zero value tells it nothing.
type Dialects []dialect

// dialect is one convention.
type dialect struct {
	name string
	// first is the number that the first socket must have; 0 leaves it open.
	first int
	// tell adds what the convention says about the sockets to the plan.
	tell func(*SocketPlan, PlanRequest, []heldSocket) error
}

// dialects is the table of all conventions.
var dialects = []dialect{
	{"systemd", inherited.FirstFile, tellSystemd},
	{"server-starter", 0, tellServerStarter},
	{"einhorn", 0, tellEinhorn},
	{"nginx", 0, tellNginx},
	{"php-fpm", 0, tellFPM},
	{"tableflip", tableflip.FirstFile, tellTableflip},
	{"stdin", 0, tellStdin},
}

// ParseDialects finds the named conventions: systemd and server-starter for no names, no one for "none" alone.
func ParseDialects(names []string) (Dialects, error) {
	if len(names) == 0 {
		names = []string{"systemd", "server-starter"}
	}
	if slices.Equal(names, []string{"none"}) {
		return nil, nil
	}
	var found Dialects
	for _, name := range names {
		i := slices.IndexFunc(dialects, func(d dialect) bool { return d.name == name })
		if i < 0 {
			return nil, fmt.Errorf("cannot use dialect %q: use one or more of %s, or none alone", name, knownDialects())
		}
		if err := found.clash(dialects[i]); err != nil {
			return nil, err
		}
		found = append(found, dialects[i])
	}
	return found, nil
}

func knownDialects() string {
	names := make([]string, len(dialects))
	for i, d := range dialects {
		names[i] = d.name
	}
	return strings.Join(names, ", ")
}

func (d Dialects) clash(with dialect) error {
	for _, other := range d {
		if other.name == with.name {
			return fmt.Errorf("cannot use dialect %s twice", with.name)
		}
		if other.first != 0 && with.first != 0 && other.first != with.first {
			return fmt.Errorf("cannot use the dialects %s and %s together: sockets begin at descriptor %d in one, at %d in the other",
				other.name, with.name, other.first, with.first)
		}
	}
	return nil
}

// first is the number of the first socket in the app: 0 for an app that knows only its stdin.
func (d Dialects) first() int {
	if len(d) == 1 && d[0].name == "stdin" {
		return 0
	}
	first := inherited.FirstFile
	for _, entry := range d {
		first = max(first, entry.first)
	}
	return first
}

// tellSystemd: sd_listen_fds(3).
func tellSystemd(g *SocketPlan, _ PlanRequest, sockets []heldSocket) error {
	if len(sockets) == 0 {
		return nil
	}
	g.set("LISTEN_FDS", strconv.Itoa(len(sockets)))
	g.set("LISTEN_FDNAMES", join(sockets, ":", func(s heldSocket) string { return s.name }))
	g.PIDVars = append(g.PIDVars, "LISTEN_PID")
	return nil
}

// tellServerStarter: server_ports in Server::Starter splits at ";" and then at the first "=". The "u" of datagram
// ports is go-server-starter's.
func tellServerStarter(g *SocketPlan, r PlanRequest, sockets []heldSocket) error {
	if err := expressible("server-starter", sockets, ";="); err != nil {
		return err
	}
	g.set("SERVER_STARTER_PORT", join(sockets, ";", func(s heldSocket) string {
		if strings.HasPrefix(s.network, "udp") {
			return fmt.Sprintf("u%s=%d", s.bound, s.fd)
		}
		return fmt.Sprintf("%s=%d", s.bound, s.fd)
	}))
	g.set("SERVER_STARTER_GENERATION", strconv.Itoa(r.Generation))
	return nil
}

// tellEinhorn: workers compare EINHORN_MASTER_PID with their parent's pid before they believe the rest.
func tellEinhorn(g *SocketPlan, r PlanRequest, sockets []heldSocket) error {
	g.set("EINHORN_MASTER_PID", strconv.Itoa(r.Parent))
	g.set("EINHORN_FD_COUNT", strconv.Itoa(len(sockets)))
	for i, s := range sockets {
		g.set(fmt.Sprintf("EINHORN_FD_%d", i), strconv.Itoa(s.fd))
		g.set(fmt.Sprintf("EINHORN_FD_FAMILY_%d", i), s.family())
	}
	return nil
}

func (s heldSocket) family() string {
	bound, err := netip.ParseAddrPort(s.bound)
	switch {
	case err != nil:
		return "AF_UNIX"
	case bound.Addr().Is4():
		return "AF_INET"
	}
	return "AF_INET6"
}

// tellNginx: ngx_add_inherited_sockets in nginx.c takes a number only when a ";" follows it. nginx takes it for granted
// that an inherited socket does not block: a worker would hang in accept when another one was faster.
func tellNginx(g *SocketPlan, r PlanRequest, sockets []heldSocket) error {
	for _, l := range r.Listeners {
		if err := unix.SetNonblock(l.FD(), true); err != nil {
			return fmt.Errorf("cannot prepare %s for nginx: %w", l.Name(), err)
		}
	}
	g.set("NGINX", join(sockets, "", func(s heldSocket) string { return strconv.Itoa(s.fd) + ";" }))
	return nil
}

// tellFPM: fpm_sockets_hash_op in fpm_sockets.c compares whole keys: the path as the pool's configuration has it, or
// inet_ntop's text of the address and the port, an IPv6 address without brackets.
func tellFPM(g *SocketPlan, _ PlanRequest, sockets []heldSocket) error {
	if err := expressible("php-fpm", sockets, ",="); err != nil {
		return err
	}
	g.set("FPM_SOCKETS", join(sockets, ",", func(s heldSocket) string {
		if bound, err := netip.ParseAddrPort(s.bound); err == nil {
			return fmt.Sprintf("%s:%d=%d", bound.Addr().WithZone(""), bound.Port(), s.fd)
		}
		return fmt.Sprintf("%s=%d", s.bound, s.fd)
	}))
	return nil
}

// tellStdin: inetd's "wait" services, FastCGI.
func tellStdin(g *SocketPlan, r PlanRequest, sockets []heldSocket) error {
	if len(sockets) != 1 {
		return fmt.Errorf("cannot use the dialect stdin with %d sockets: it passes exactly one", len(sockets))
	}
	g.Stdin = r.Listeners[0].FD()
	return nil
}

func join(sockets []heldSocket, separator string, describe func(heldSocket) string) string {
	parts := make([]string, len(sockets))
	for i, s := range sockets {
		parts[i] = describe(s)
	}
	return strings.Join(parts, separator)
}

// expressible refuses addresses that a convention would take apart in the wrong place.
func expressible(dialect string, sockets []heldSocket, reserved string) error {
	for _, s := range sockets {
		if strings.ContainsAny(s.bound, reserved) {
			return fmt.Errorf("cannot pass %s in the dialect %s, in which %q are separators: choose another path or --dialect",
				s.bound, dialect, reserved)
		}
	}
	return nil
}
