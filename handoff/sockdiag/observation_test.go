package sockdiag

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/gracerun/grace/handoff/internal/apptest"
	"golang.org/x/sys/unix"
)

// observeBoth observes one connection in both ways, whose answers have to be the same.
func observeBoth(t *testing.T, l *heldListener, app *apptest.App) [2]*Observation {
	t.Helper()
	pids, addresses := []int{app.PID}, []netip.AddrPort{netip.MustParseAddrPort(l.Bound())}
	few, ok := fewDescriptors(pids, fewSockets)
	if !ok {
		t.Fatal("the app's sockets cannot be listed")
	}
	one, err := askFor(few, addresses)
	apptest.Must(t, err)
	all, err := observeAll(pids, addresses)
	apptest.Must(t, err)
	if len(one) != 1 || len(all.found) != 1 {
		t.Fatalf("%d and %d connections, not 1", len(one), len(all.found))
	}
	return [2]*Observation{{found: one}, all}
}

func TestObserveNamesWhatTheKernelLists(t *testing.T) {
	for _, test := range []struct{ written, network, ip string }{
		{"tcp4://127.0.0.1:0", "tcp4", "127.0.0.1"},
		{":0", "tcp4", "127.0.0.1"},
		{":0", "tcp6", "::1"},
		{"[::1]:0", "tcp6", "::1"},
	} {
		t.Run(test.written+" "+test.network, func(t *testing.T) {
			l := listenAt(t, test.written)
			at := netip.AddrPortFrom(netip.MustParseAddr(test.ip), netip.MustParseAddrPort(l.Bound()).Port())
			others := []int{listenAt(t, "udp://127.0.0.1:0").FD(), listenAt(t, "unix://"+t.TempDir()+"/s").FD(), listenAt(t, "127.0.0.1:0").FD()}
			app := apptest.Start(t, "hoarder", apptest.Options{Files: append([]int{l.FD()}, others...)})
			apptest.Dial(t, test.network, at.String())
			app.Do(t, "accept")
			app.Do(t, fmt.Sprintf("dial %s %s", test.network, at))
			both := observeBoth(t, l, app)
			one, all := both[0].found[0], both[1].found[0]
			if one.name != all.name || one.inode != all.inode || one.at != all.at || one.descriptor != all.descriptor {
				t.Errorf("%+v one by one, %+v in the list", one, all)
			}
		})
	}
}

func TestObserveManySockets(t *testing.T) {
	l := listenAt(t, "127.0.0.1:0")
	app := apptest.Start(t, "hoarder", apptest.Options{Files: []int{l.FD()}})
	for range fewSockets + 1 {
		apptest.Dial(t, "tcp", l.Bound())
		app.Do(t, "accept")
	}
	if got, want := look(t, time.Hour, l, app), (Traffic{Open: fewSockets + 1, Busy: fewSockets + 1}); got != want {
		t.Errorf("%+v, not %+v", got, want)
	}
}

func TestStillBusy(t *testing.T) {
	for way, name := range []string{"one by one", "listed"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := listenAt(t, "127.0.0.1:0")
			server := apptest.Start(t, "talker", apptest.Options{Files: []int{l.FD()}})
			client := apptest.Dial(t, "tcp", l.Bound()).(*net.TCPConn)
			server.Do(t, "accept")
			observe := func() *Observation {
				o := observeBoth(t, l, server)[way]
				if o.StillBusy(quietAfter) {
					t.Error("busy before anything was found to be")
				}
				o.Traffic(quietAfter)
				return o
			}
			play(t, client, server, "ask read silence")
			o := observe()
			if !o.StillBusy(quietAfter) {
				t.Error("not busy while a request is worked on")
			}
			play(t, client, server, "answer silence")
			apptest.Eventually(t, "not busy after the answer", func() bool { return !o.StillBusy(quietAfter) })
			play(t, client, server, "ask read")
			if o.StillBusy(quietAfter) {
				t.Error("busy again without another look")
			}
			if o = observe(); !o.StillBusy(quietAfter) {
				t.Error("not busy with the next request")
			}
		})
	}
}

// Whoever else has a connection, such as a duplicate of it, is not waited for.
func TestStillBusyIsOfTheProcess(t *testing.T) {
	l := listenAt(t, "127.0.0.1:0")
	app := apptest.Start(t, "hoarder", apptest.Options{Files: []int{l.FD()}})
	client := apptest.Dial(t, "tcp", l.Bound())
	app.Do(t, "accept")
	_, err := client.Write([]byte("unread"))
	apptest.Must(t, err)
	o := observeBoth(t, l, app)[0]
	o.Traffic(time.Hour)
	duplicate := duplicateOf(t, o.found[0].descriptor)
	defer duplicate()
	if !o.StillBusy(time.Hour) {
		t.Error("not busy while the app has it")
	}
	app.Do(t, "close")
	if o.StillBusy(time.Hour) {
		t.Error("busy when the app has closed it")
	}
}

// duplicateOf keeps a socket open until the function is called that it returns.
func duplicateOf(t *testing.T, d descriptor) (end func()) {
	t.Helper()
	pidfd, err := unix.PidfdOpen(d.pid, 0)
	apptest.Must(t, err)
	defer unix.Close(pidfd)
	fd, err := unix.PidfdGetfd(pidfd, d.fd, 0)
	apptest.Must(t, err)
	return func() { unix.Close(fd) }
}
