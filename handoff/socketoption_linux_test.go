package handoff

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/gracerun/grace/handoff/internal/apptest"
	"golang.org/x/sys/unix"
)

// socketOptionCases are all options, each with a value that differs from the kernel's own.
var socketOptionCases = map[string]struct {
	value         string
	level, option int
	want          int
	listener      bool // it is the listener's own, and no connection has it
}{
	"nodelay":            {"false", unix.IPPROTO_TCP, unix.TCP_NODELAY, 0, false},
	"keepalive":          {"true", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1, false},
	"keepalive-time":     {"17s", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 17, false},
	"keepalive-interval": {"13s", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 13, false},
	"keepalive-probes":   {"3", unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 3, false},
	"user-timeout":       {"1500ms", unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 1500, false},
	"receive-buffer":     {"16K", unix.SOL_SOCKET, unix.SO_RCVBUF, 32 << 10, false},
	"send-buffer":        {"24K", unix.SOL_SOCKET, unix.SO_SNDBUF, 48 << 10, false},
	"mark":               {"0x10", unix.SOL_SOCKET, unix.SO_MARK, 16, false},
	"defer-accept":       {"1s", unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 1, true},
	"fastopen":           {"7", unix.IPPROTO_TCP, unix.TCP_FASTOPEN, 7, true},
	"freebind":           {"true", unix.IPPROTO_IP, unix.IP_FREEBIND, 1, true},
}

func TestEverySocketOptionHasACase(t *testing.T) {
	for _, k := range optionKinds() {
		if _, ok := socketOptionCases[k.name]; !ok {
			t.Errorf("no test sets %s", k.name)
		}
	}
}

// query gives a network the options of all cases that it can have.
func query(a Address) string {
	var options []string
	for _, name := range slices.Sorted(maps.Keys(socketOptionCases)) {
		k, _ := optionNamed(name)
		if k.fits(&a) && !(k.early && a.Network == "fd") {
			options = append(options, name+"="+socketOptionCases[name].value)
		}
	}
	return strings.Join(options, "&")
}

func TestConnectionsHaveTheOptionsOfTheirListener(t *testing.T) {
	apptest.RequireRoot(t) // a mark needs CAP_NET_ADMIN
	for name, open := range map[string]func(t *testing.T, options string) (fd int, bound string){
		"held": func(t *testing.T, options string) (int, string) {
			l := hold(t, "127.0.0.1:0?"+options)
			return l.FD(), l.Bound()
		},
		"held, IPv6": func(t *testing.T, options string) (int, string) {
			l := hold(t, "[::1]:0?"+options)
			return l.FD(), l.Bound()
		},
		"revived": func(t *testing.T, options string) (int, string) {
			l := hold(t, "127.0.0.1:0?"+options)
			apptest.Must(t, unix.Shutdown(l.FD(), unix.SHUT_RD))
			apptest.Must(t, l.Revive())
			return l.FD(), l.Bound()
		},
		"steered": func(t *testing.T, options string) (int, string) {
			l := reserve(t, "127.0.0.1:0?steer=true&"+options)
			return own(t, newSteering(t), first, l).fd, l.Bound()
		},
		"steered, of a second generation": func(t *testing.T, options string) (int, string) {
			s, l := newSteering(t), reserve(t, "127.0.0.1:0?steer=true&"+options)
			own(t, s, first, l)
			successor := own(t, s, second, l)
			_, err := s.Cutover(2)
			apptest.Must(t, err)
			return successor.fd, l.Bound()
		},
		"passed": func(t *testing.T, options string) (int, string) {
			passed := hold(t, "127.0.0.1:0?nodelay=false")
			pass(t, "web", passed.FD())
			l := hold(t, "fd://web?"+options)
			return l.FD(), l.Bound()
		},
	} {
		t.Run(name, func(t *testing.T) {
			network := Address{Network: "tcp", Steer: strings.HasPrefix(name, "steered")}
			if name == "passed" {
				network.Network = "fd"
			}
			checkOptions(t, query(network), open)
			fd, bound := open(t, "")
			if got := optionOf(t, acceptFrom(t, fd, bound), unix.IPPROTO_TCP, unix.TCP_NODELAY); got == 0 {
				t.Error("without an option Nagle's algorithm is on")
			}
		})
	}
}

func checkOptions(t *testing.T, options string, open func(t *testing.T, options string) (int, string)) {
	t.Helper()
	fd, bound := open(t, options)
	connection := acceptFrom(t, fd, bound)
	if !strings.Contains(options, "send-buffer") {
		t.Errorf("only %s is set", options)
	}
	for option := range strings.SplitSeq(options, "&") {
		name, _, _ := strings.Cut(option, "=")
		want, of := socketOptionCases[name], connection
		if want.listener {
			of = fd
		}
		if got := optionOf(t, of, want.level, want.option); got != want.want {
			t.Errorf("%s is %d, not %d", option, got, want.want)
		}
	}
}

// acceptFrom gives the server's end of a new connection, on which the client has sent something: defer-accept waits for that.
func acceptFrom(t *testing.T, fd int, bound string) int {
	t.Helper()
	conn := connect(t, netip.MustParseAddrPort(bound), 0)
	t.Cleanup(func() { conn.Close() })
	_, err := conn.Write([]byte("hello"))
	apptest.Must(t, err)
	apptest.Must(t, unix.SetNonblock(fd, false))
	accepted, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
	apptest.Must(t, err)
	t.Cleanup(func() { unix.Close(accepted) })
	return accepted
}

func optionOf(t *testing.T, fd, level, option int) int {
	t.Helper()
	value, err := unix.GetsockoptInt(fd, level, option)
	apptest.Must(t, err)
	return value
}

func TestSocketOptionsOfOtherSockets(t *testing.T) {
	apptest.RequireRoot(t)
	for _, written := range []string{"udp://127.0.0.1:0?receive-buffer=16K&mark=16", "unixgram://@" + t.Name() + "?receive-buffer=16K"} {
		if got := option(t, hold(t, written), unix.SOL_SOCKET, unix.SO_RCVBUF); got != 32<<10 {
			t.Errorf("%s has a buffer of %d", written, got)
		}
	}
}

func TestFreebindBindsAnAddressThatIsNotThereYet(t *testing.T) {
	for _, host := range []string{"192.0.2.1:0", "[2001:db8::1]:0"} {
		hold(t, host+"?freebind=true")
	}
}

// A socket that a service manager has made may be of another kind than an option is for.
func TestOptionThatDoesNotFitAPassedSocketIsRefused(t *testing.T) {
	pass(t, "dns", hold(t, "udp://127.0.0.1:0").FD())
	if err := bindError(t, "fd://dns?nodelay=true"); !strings.Contains(err.Error(), `"nodelay" does not fit udp://127.0.0.1:`) {
		t.Error(err)
	}
}

// The kernel cuts what it does not allow without a word; grace does not.
func TestBufferThatIsNotAllowedIsRefused(t *testing.T) {
	apptest.RequireRoot(t)
	unprivileged := apptest.Start(t, "binder", apptest.Options{UID: apptest.Nobody})
	if got := unprivileged.Ask(t, "127.0.0.1:0?receive-buffer=1G"); !strings.Contains(got, "raise net.core.rmem_max") {
		t.Error(got)
	}
	if got := unprivileged.Ask(t, "127.0.0.1:0?send-buffer=8K"); !strings.HasPrefix(got, "127.0.0.1:") {
		t.Error(got)
	}
}

// A socket in the place of an app's own cannot know its options.
func TestFreshSocketsDoNotDelay(t *testing.T) {
	s, at := newSteering(t), reservePort(t, "127.0.0.1")
	fd, err := s.Fresh(first, rawSockaddr(at))
	apptest.Must(t, err)
	defer unix.Close(fd)
	if optionOf(t, fd, unix.IPPROTO_TCP, unix.TCP_NODELAY) == 0 {
		t.Error("Nagle's algorithm is on")
	}
}
