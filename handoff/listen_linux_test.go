package handoff

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gracerun/grace/handoff/internal/apptest"
	"github.com/gracerun/grace/handoff/socket"
	"golang.org/x/sys/unix"
)

func init() {
	apptest.Roles["flipper of handoff"] = func() {
		apptest.Flipper(func(words []string) string { return fmt.Sprint(useHandoff(words[1])) })
	}
}

// useHandoff is what other parts of an app on tableflip may do.
func useHandoff(call string) error {
	if call == "ready" {
		return Ready()
	}
	ln, err := Listen("tcp", "127.0.0.1:0")
	if err == nil {
		err = ln.Close()
	}
	return err
}

func TestFreshListenersAreNotMultipath(t *testing.T) {
	ln, err := Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	apptest.Control(ln, func(fd int) {
		if protocol, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL); protocol != unix.IPPROTO_TCP {
			t.Errorf("the protocol is %d, %v", protocol, err)
		}
	})
}

// startHeirOf starts an heir as grace does, with its questions as its command line.
func startHeirOf(t *testing.T, dialects []string, listeners []*socket.Listener, asks ...string) (*socket.SocketPlan, *apptest.App) {
	t.Helper()
	d, err := socket.ParseDialects(dialects)
	apptest.Must(t, err)
	grant, err := d.Plan(socket.PlanRequest{Listeners: listeners, Command: asks, Generation: 1, Parent: os.Getpid()})
	apptest.Must(t, err)
	t.Cleanup(func() { grant.Close() })
	role := "heir"
	if len(grant.PIDVars) > 0 {
		role = "systemd heir"
	}
	heir := apptest.Start(t, role, given(grant, "HEIR="+strings.Join(grant.Command, " ")))
	t.Cleanup(heir.Wait) // it ends when it has greeted
	return grant, heir
}

func hearBequest(t *testing.T, a *apptest.App) (b bequest) {
	t.Helper()
	apptest.Must(t, json.Unmarshal([]byte(a.Hear(t)), &b))
	return b
}

func TestGraceAndItsAppsUnderstandEachOther(t *testing.T) {
	for _, test := range []struct {
		dialects string
		sockets  []string
	}{
		{"systemd", []string{"web", "api", "dns"}},
		{"server-starter", []string{"web", "api", "dns"}},
		{"einhorn", []string{"web", "api", "dns"}},
		{"nginx", []string{"web", "api", "dns"}},
		{"php-fpm", []string{"web", "api", "dns"}},
		{"tableflip", []string{"web", "api", "dns"}},
		{"stdin", []string{"web"}},
		{"stdin", []string{"api"}},
		{"stdin", []string{"dns"}},
		{"systemd,stdin", []string{"web"}},
		{"tableflip,stdin", []string{"web"}},
		{"tableflip,nginx,einhorn", []string{"web", "api", "dns"}},
	} {
		dialects := strings.Split(test.dialects, ",")
		t.Run(strings.Join(append(dialects, test.sockets...), " "), func(t *testing.T) {
			held := map[string]*socket.Listener{
				"web": hold(t, "web=127.0.0.1:0"), "api": hold(t, "api=unix://"+filepath.Join(t.TempDir(), "api")), "dns": hold(t, "dns=udp://[::1]:0"),
			}
			var listeners []*socket.Listener
			var asks []string
			for _, name := range test.sockets {
				l := held[name]
				listeners = append(listeners, l)
				function := "Listen"
				if !l.Stream() {
					function = "ListenPacket"
				}
				// Asked for twice, and by its number too, a socket is given out once.
				asks = append(asks, strings.Join([]string{function, l.Network(), l.Bound()}, ","))
				asks = append(asks, asks[len(asks)-1], function+",fd,{fd:"+name+"}")
			}
			_, heir := startHeirOf(t, dialects, listeners, append(asks, "Descriptor,0")...)
			for n, l := range listeners {
				if got, want := hearBequest(t, heir), (bequest{l.Inode(), ""}); got != want {
					t.Errorf("%s gives %+v, not %+v", asks[3*n], got, want)
				}
				if got := hearBequest(t, heir); !strings.Contains(got.Error, "address already in use") {
					t.Errorf("asking again for %s gives %+v", l.Name(), got)
				}
				if got := hearBequest(t, heir); !strings.Contains(got.Error, "used it already") {
					t.Errorf("asking by its number for %s gives %+v", l.Name(), got)
				}
			}
			if stdin := hearBequest(t, heir).Error; strings.Contains(stdin, "socket") {
				t.Errorf("descriptor 0 is %s", stdin)
			}
			for _, l := range listeners {
				if l.Stream() {
					checkGreeting(t, l.Network(), l.Bound())
				}
			}
		})
	}
}

// A number on the command line is enough, and goes together with every dialect.
func TestSocketsByNumber(t *testing.T) {
	for _, dialect := range []string{"none", "systemd", "tableflip"} {
		t.Run(dialect, func(t *testing.T) {
			web, dns := hold(t, "web=127.0.0.1:0"), hold(t, "dns=udp://127.0.0.1:0")
			_, heir := startHeirOf(t, []string{dialect}, []*socket.Listener{web, dns},
				"ListenPacket,fd,{fd:web}", "Listen,fd,{fd:dns}", "ListenPacket,fd,{fd:dns}", "Listen,fd,{fd:web}", "Listen,fd,{fd:web}")
			for _, number := range []string{"web", "dns"} {
				if got := hearBequest(t, heir); !strings.Contains(got.Error, "inherited no such socket") {
					t.Errorf("%s as a socket of the other kind is %+v", number, got)
				}
			}
			for _, l := range []*socket.Listener{dns, web} {
				if got, want := hearBequest(t, heir), (bequest{l.Inode(), ""}); got != want {
					t.Errorf("%s is %+v, not %+v", l.Name(), got, want)
				}
			}
			if got := hearBequest(t, heir); got.Error == "" {
				t.Error("a number is given out twice")
			}
			checkGreeting(t, "tcp", web.Bound())
		})
	}
	if _, err := Listen("fd", "web"); err == nil || !strings.Contains(err.Error(), "not the number") {
		t.Errorf("a number in words is %v", err)
	}
}

// What an app finds as its stdin is its own, save for a socket that is there to be served.
func TestOtherStdinIsLeftAlone(t *testing.T) {
	web := hold(t, "127.0.0.1:0")
	conn, err := net.Dial("tcp", web.Bound())
	apptest.Must(t, err)
	defer conn.Close()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	apptest.Must(t, err)
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	connection := bequeath(t, conn)
	defer unix.Close(connection)
	pipeEnd, _ := apptest.Pipe(t)
	for name, test := range map[string]struct {
		fd   int
		want string
	}{
		"a connection": {connection, "socket:"}, "one of a pair": {pair[0], "socket:"}, "a pipe": {int(pipeEnd.Fd()), "pipe:"},
	} {
		asks := "HEIR=ListenPacket,udp,127.0.0.1:0 Descriptor,0 ListenPacket,fd,0"
		heir := apptest.Start(t, "heir", apptest.Options{Stdin: test.fd, Env: []string{asks}})
		hearBequest(t, heir)
		if got := hearBequest(t, heir).Error; !strings.HasPrefix(got, test.want) {
			t.Errorf("%s became %s", name, got)
		}
		if got := hearBequest(t, heir); got.Error == "" {
			t.Errorf("%s is a socket to serve: %+v", name, got)
		}
	}
}

func TestReadyTellsATableflipParent(t *testing.T) {
	web := hold(t, "127.0.0.1:0")
	grant, heir := startHeirOf(t, []string{"tableflip"}, []*socket.Listener{web}, "Listen,tcp,"+web.Bound(), "Ready", "Ready")
	if !grant.TellsReady() {
		t.Fatal("the grant has no pipe")
	}
	apptest.Must(t, grant.AwaitReady())
	for _, call := range []string{"Listen", "Ready", "a second Ready"} {
		if got := hearBequest(t, heir); got.Error != "" {
			t.Errorf("%s: %s", call, got.Error)
		}
	}
	if err := grant.AwaitReady(); !errors.Is(err, io.EOF) {
		t.Errorf("after that comes %v", err)
	}
	checkGreeting(t, "tcp", web.Bound())
}

// A listener has to be asked for first: until then the pipes may be for the library.
func TestReadyLeavesTableflipAppsAlone(t *testing.T) {
	for _, first := range []string{"handoff ready", "handoff listen"} {
		t.Run(first, func(t *testing.T) {
			web := hold(t, "127.0.0.1:0")
			grant := issue(t, []string{"tableflip"}, web)
			pipe, err := unix.FcntlInt(uintptr(grant.Files[0]), unix.F_DUPFD_CLOEXEC, 0)
			apptest.Must(t, err)
			flipper := apptest.Start(t, "flipper of handoff", given(grant))
			flipper.Do(t, first)
			flipper.Do(t, "handoff ready")
			said, err := unix.IoctlGetInt(pipe, unix.TIOCINQ)
			if err = errors.Join(err, unix.Close(pipe)); said != 0 || err != nil {
				t.Errorf("the library's pipe has %d bytes, %v", said, err)
			}
			if got := flipper.Ask(t, "listen tcp "+web.Address().Addr); got != fmt.Sprint(web.Inode()) {
				t.Errorf("the library finds %s, not %d", got, web.Inode())
			}
			flipper.Do(t, "ready")
			apptest.Must(t, grant.AwaitReady())
		})
	}
}

// An app that leaves tableflip for this package is upgraded in place.
func TestRealTableflipParent(t *testing.T) {
	old := apptest.Start(t, "flipper of handoff", apptest.Options{})
	inode := old.Ask(t, "listen unix @"+t.Name())
	old.Do(t, "ready")
	_, err := fmt.Fprintln(old.Orders, "upgrade Listen,unix,@"+t.Name()+" Ready")
	apptest.Must(t, err)
	if got := hearBequest(t, old); fmt.Sprint(got.Inode) != inode {
		t.Errorf("the new version got %+v, not %s", got, inode)
	}
	said := []string{old.Hear(t), old.Hear(t)} // of both versions, in either order
	if !slices.Contains(said, "<nil>") || !slices.Contains(said, `{"Inode":0,"Error":""}`) {
		t.Errorf("the upgrade ends with %q", said)
	}
	apptest.Must(t, unix.Kill(old.PID, unix.SIGKILL))
	checkGreeting(t, "unix", "@"+t.Name())
}
