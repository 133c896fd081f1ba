package socket

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/gracerun/grace/handoff/internal/apptest"
	"golang.org/x/sys/unix"
)

func TestEverySocketOptionHasACase(t *testing.T) {
	for _, k := range optionKinds() {
		if _, ok := apptest.SocketOptions[k.name]; !ok {
			t.Errorf("no test sets %s", k.name)
		}
	}
}

// query gives a network the options of all cases that it can have.
func query(a Address) string {
	var options []string
	for _, name := range slices.Sorted(maps.Keys(apptest.SocketOptions)) {
		k, _ := optionNamed(name)
		if k.fits(&a) && !(k.early && a.Network == "fd") {
			options = append(options, name+"="+apptest.SocketOptions[name].Value)
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
		"passed": func(t *testing.T, options string) (int, string) {
			passed := hold(t, "127.0.0.1:0?nodelay=false")
			pass(t, "web", passed.FD())
			l := hold(t, "fd://web?"+options)
			return l.FD(), l.Bound()
		},
	} {
		t.Run(name, func(t *testing.T) {
			network := Address{Network: "tcp"}
			if name == "passed" {
				network.Network = "fd"
			}
			apptest.CheckOptions(t, query(network), open)
			fd, bound := open(t, "")
			if got := apptest.OptionOf(t, apptest.AcceptFrom(t, fd, bound), unix.IPPROTO_TCP, unix.TCP_NODELAY); got == 0 {
				t.Error("without an option Nagle's algorithm is on")
			}
		})
	}
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
	if err := bindError(t, "fd://dns?nodelay=true"); !strings.Contains(err.Error(), `"nodelay" cannot be used with udp://127.0.0.1:`) {
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
