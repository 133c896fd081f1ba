package farewell

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/gracerun/grace/handoff/internal/apptest"
	"golang.org/x/sys/unix"
)

func init() {
	apptest.Roles["opener"] = func() {
		apptest.Obey(func(string) string {
			_, err := Open()
			return strings.ReplaceAll(fmt.Sprint(err), "\n", " ")
		})
	}
	apptest.Roles["stranger"] = func() {
		apptest.Obey(func(order string) string {
			pid, at, _ := strings.Cut(order, " ")
			return announceFor(pid, netip.MustParseAddrPort(at))
		})
	}
}

// announceFor tells whose connections it may not have.
func announceFor(pid string, at netip.AddrPort) string {
	number, err := strconv.Atoi(pid)
	if err != nil {
		return err.Error()
	}
	announcer, err := Open()
	if err != nil {
		return err.Error()
	}
	defer announcer.Close()
	f, err := announcer.Announce(Generation{Pids: func() ([]int, error) { return []int{number}, nil }, At: []netip.AddrPort{at}})
	if err != nil {
		return err.Error()
	}
	defer f.Release()
	return fmt.Sprintf("%+v, %v", f.Counts(), f.Denied())
}

// That nobody is told is said: a list of no connections would look like an app that has none. To list the descriptors of another
// user's process takes CAP_DAC_READ_SEARCH (fs/proc/fd.c), to have them CAP_SYS_PTRACE.
func TestConnectionsThatMayNotBeHad(t *testing.T) {
	apptest.RequireRoot(t)
	announcer(t)
	r := newRoad(t, "127.0.0.1")
	r.wire(t)
	for right, want := range map[uintptr]string{unix.CAP_SYS_PTRACE: "Silent:1", unix.CAP_CHOWN: "cannot look for connections: "} {
		rights := []uintptr{unix.CAP_BPF, unix.CAP_NET_ADMIN, unix.CAP_DAC_READ_SEARCH, right}
		stranger := apptest.Start(t, "stranger", apptest.Options{UID: apptest.Nobody, Rights: rights})
		if got := stranger.Ask(t, fmt.Sprint(os.Getpid(), " ", r.at)); !strings.Contains(got, want) {
			t.Errorf("%s does not say %q", got, want)
		}
	}
}

func TestRights(t *testing.T) {
	apptest.RequireRoot(t)
	announcer(t)
	for _, c := range []struct {
		rights []uintptr
		want   string
	}{
		{[]uintptr{unix.CAP_BPF, unix.CAP_NET_ADMIN}, "<nil>"},
		{[]uintptr{unix.CAP_BPF}, "grace has no CAP_NET_ADMIN: "},
		{[]uintptr{unix.CAP_NET_ADMIN}, "grace has no CAP_BPF: "},
		{nil, "cannot tell clients that connections close: the kernel makes no map grace_sockets: operation not permitted (grace has no CAP_BPF and no CAP_NET_ADMIN: start grace as root"},
	} {
		opener := apptest.Start(t, "opener", apptest.Options{UID: apptest.Nobody, Rights: c.rights})
		if got := opener.Ask(t, "open"); !strings.Contains(got, c.want) {
			t.Errorf("%q does not say %q", got, c.want)
		}
	}
}

// What the map does not take goes on as it is, and is counted.
func TestMultipathTCPIsUntold(t *testing.T) {
	multipath := net.ListenConfig{}
	multipath.SetMultipathTCP(true)
	listener, err := multipath.Listen(context.Background(), "tcp", "127.0.0.1:0")
	apptest.Must(t, err)
	defer listener.Close()
	dialer := net.Dialer{}
	dialer.SetMultipathTCP(true)
	client, err := dialer.Dial("tcp", listener.Addr().String())
	apptest.Must(t, err)
	defer client.Close()
	app, err := listener.Accept()
	apptest.Must(t, err)
	defer app.Close()
	used, err := app.(*net.TCPConn).MultipathTCP()
	if err != nil || !used {
		t.Skipf("no multipath TCP: %v", err)
	}
	f, err := announcer(t).Announce(Generation{Pids: own, At: []netip.AddrPort{netip.MustParseAddrPort(listener.Addr().String())}})
	apptest.Must(t, err)
	defer f.Release()
	mustCount(t, f, Counts{Untold: 1})
	exchange(t, client, app)
}

func TestUnixSocketsAreLetAlone(t *testing.T) {
	listener, err := net.Listen("unix", t.TempDir()+"/s")
	apptest.Must(t, err)
	defer listener.Close()
	client := apptest.Dial(t, "unix", listener.Addr().String())
	app, err := listener.Accept()
	apptest.Must(t, err)
	defer app.Close()
	f, err := announcer(t).Announce(Generation{Pids: own, At: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:1")}})
	apptest.Must(t, err)
	defer f.Release()
	mustCount(t, f, Counts{})
	exchange(t, client, app)
}

func exchange(t *testing.T, client, app net.Conn) {
	t.Helper()
	_, err := io.WriteString(client, get)
	apptest.Must(t, err)
	mustRead(t, app, get)
	_, err = io.WriteString(app, plainOK)
	apptest.Must(t, err)
	mustRead(t, client, plainOK)
}

// An app that dials out from the same machine is not the server of that connection.
func TestConnectionsOfTheAppsOwnAreLetAlone(t *testing.T) {
	r := newRoad(t, "127.0.0.1")
	w := r.wire(t)
	f, err := announcer(t).Announce(Generation{Pids: own, At: []netip.AddrPort{netip.MustParseAddrPort(w.client.LocalAddr().String())}})
	apptest.Must(t, err)
	mustCount(t, f, Counts{Silent: 1}) // the other end
	apptest.Must(t, f.Release())
	f, err = announcer(t).Announce(Generation{Pids: own, At: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:80")}})
	apptest.Must(t, err)
	mustCount(t, f, Counts{})
	apptest.Must(t, f.Release())
	w.ask(t, get)
	w.send200(t)
}

func TestAllAddressesOfAPort(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		w := newWire(t, host)
		everywhere := netip.IPv6Unspecified()
		f, err := announcer(t).Announce(Generation{Pids: own, At: []netip.AddrPort{netip.AddrPortFrom(everywhere, w.at.Port())}})
		apptest.Must(t, err)
		w.speak(t)
		apptest.Must(t, f.Release())
		// Once more, after a way back.
		f, err = announcer(t).Announce(Generation{Pids: own, At: []netip.AddrPort{netip.AddrPortFrom(everywhere, w.at.Port())}})
		apptest.Must(t, err)
		w.speak(t)
		apptest.Must(t, f.Release())
	}
}

// An app in a network of its own, as in a container, is found by its descriptors.
func TestAppInAnotherNetwork(t *testing.T) {
	apptest.RequireRoot(t)
	announcer(t)
	app := apptest.Start(t, "obedient", apptest.Options{Flags: unix.CLONE_NEWNET})
	app.Do(t, "up")
	at := netip.MustParseAddrPort(app.Ask(t, "listen 127.0.0.1"))
	app.Do(t, "dial")
	app.Do(t, "dial")
	f, err := announcer(t).Announce(Generation{Pids: func() ([]int, error) { return []int{app.PID}, nil }, At: []netip.AddrPort{at}})
	apptest.Must(t, err)
	if got, want := app.Ask(t, "talk"), fmt.Sprintf("%q", closedOK); got != want {
		t.Errorf("%s, not %s", got, want)
	}
	mustHold(t, f, Counts{Busy: 1, Silent: 1}) // a request of the silent one could not be passed on
	apptest.Must(t, f.Release())
	if got, want := app.Ask(t, "talk"), fmt.Sprintf("%q", plainOK); got != want {
		t.Errorf("%s, not %s", got, want)
	}
}
