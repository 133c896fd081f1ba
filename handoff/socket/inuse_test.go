package socket

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strings"
	"testing"
	"time"

	"github.com/gracerun/grace/handoff/internal/apptest"
	"github.com/gracerun/grace/handoff/internal/inetaddr"
	"github.com/gracerun/grace/handoff/sockdiag"
	"golang.org/x/sys/unix"
)

func init() {
	apptest.Roles["squatter"] = squatter
}

// squatter binds the address in SQUAT, with SQUAT_STUBBORN=yes heeds no SIGTERM, and closes its socket when told.
func squatter() {
	if os.Getenv("SQUAT_STUBBORN") == "yes" {
		signal.Ignore(unix.SIGTERM)
	}
	a, err := ParseAddress(os.Getenv("SQUAT"))
	if err != nil {
		fmt.Println(err)
		return
	}
	l, err := Bind(a)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(l.Bound())
	apptest.Obey(func(string) string { return fmt.Sprint(unix.Close(l.FD())) })
}

func squat(t *testing.T, written string, how apptest.Options) (squatter *apptest.App, bound string) {
	t.Helper()
	how.Env = append(how.Env, "SQUAT="+written)
	a := apptest.Start(t, "squatter", how)
	return a, a.Hear(t)
}

func inUseError(t *testing.T, written string) *InUseError {
	t.Helper()
	err := bindError(t, written)
	var inUse *InUseError
	if !errors.As(err, &inUse) || !errors.Is(err, unix.EADDRINUSE) {
		t.Fatalf("%s: %v", written, err)
	}
	return inUse
}

func TestAddressInUseNamesItsHolder(t *testing.T) {
	folder := t.TempDir()
	for _, written := range []string{
		"tcp4://127.0.0.1:0", "tcp4://:0", "[::1]:0", "[::]:0", "udp4://127.0.0.1:0", "udp://:0",
		"unix://" + folder + "/with space", "unixgram://" + folder + "/g", "unix://@" + folder, "unixgram://@g" + folder,
	} {
		t.Run(written, func(t *testing.T) {
			holder, bound := squat(t, "x="+written, apptest.Options{})
			network, _, ok := strings.Cut(written, "://")
			if !ok {
				network = "tcp"
			}
			e := inUseError(t, "x="+network+"://"+bound)
			if len(e.Holders) != 1 {
				t.Fatalf("holders %+v, %s", e.Holders, e.Unseen)
			}
			want := sockdiag.Holder{PID: holder.PID, UID: os.Geteuid(), User: sockdiag.UserName(os.Geteuid()), Command: "app squatter"}
			if e.Holders[0] != want {
				t.Errorf("got %+v, want %+v", e.Holders[0], want)
			}
			says := fmt.Sprintf("cannot bind %s: address already in use by pid %d of %s: app squatter", bound, want.PID, want.User)
			if e.Error() != says {
				t.Errorf("says %q, not %q", e, says)
			}
		})
	}
}

func TestAddressInUseNamesAllWhoShareTheSocket(t *testing.T) {
	l := hold(t, "127.0.0.1:0")
	var pids []int
	for range shownHolders {
		pids = append(pids, apptest.Start(t, "server", given(issue(t, nil, l))).PID)
	}
	e := inUseError(t, l.Bound())
	if len(e.Holders) != len(pids)+1 || !strings.Contains(e.Error(), " and 1 more;") {
		t.Errorf("%d holders: %v", len(e.Holders), e)
	}
}

func TestWhoHasOnlyAConnectionIsNoHolder(t *testing.T) {
	l := hold(t, "unix://"+t.TempDir()+"/s")
	client, err := net.Dial("unix", l.Bound())
	apptest.Must(t, err)
	defer client.Close()
	connection, _, err := unix.Accept(l.FD())
	apptest.Must(t, err)
	defer unix.Close(connection)
	server := apptest.Start(t, "server", given(issue(t, nil, l)))
	apptest.Must(t, unix.Close(l.fd))
	l.fd = -1
	e := inUseError(t, "unix://"+l.Bound())
	if len(e.Holders) != 1 || e.Holders[0].PID != server.PID {
		t.Errorf("holders %+v, not pid %d", e.Holders, server.PID)
	}
}

func TestAddressInUseByAnUnseenHolder(t *testing.T) {
	apptest.RequireRoot(t)
	tcp, path := hold(t, "127.0.0.1:0"), hold(t, "unix://@"+t.TempDir())
	stranger := apptest.Start(t, "binder", apptest.Options{UID: apptest.Nobody})
	for written, reason := range map[string]string{
		tcp.Bound():              "the socket belongs to root, whose processes grace (uid 65534) may not inspect",
		"unix://" + path.Bound(): "the socket belongs to another user",
	} {
		if got := stranger.Ask(t, written); !strings.Contains(got, "cannot see which process has it: "+reason) {
			t.Errorf("%s: %s", written, got)
		}
	}
}

func TestAddressInUseByASocketThatDoesNotListen(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	apptest.Must(t, err)
	defer unix.Close(fd)
	apptest.Must(t, unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	name, err := unix.Getsockname(fd)
	apptest.Must(t, err)
	if e := inUseError(t, inetaddr.Of(name).String()); !strings.Contains(e.Error(), "no listening socket") {
		t.Error(e)
	}
}

func TestHolderThatChangedItsUser(t *testing.T) {
	apptest.RequireRoot(t)
	holder, bound := squat(t, "127.0.0.1:0", apptest.Options{UID: apptest.Nobody})
	e := inUseError(t, bound)
	if len(e.Holders) != 1 || e.Holders[0].PID != holder.PID || e.Holders[0].User != "nobody" {
		t.Errorf("holders %+v, %s", e.Holders, e.Unseen)
	}
}

// Two sockets on one port that do not collide: only the one in the way may be named, or evicted.
func TestOnlyTheCollidingSocketIsNamed(t *testing.T) {
	port := apptest.FreePort(t, "127.0.0.1").Port()
	holder, bound := squat(t, fmt.Sprintf("tcp4://127.0.0.1:%d", port), apptest.Options{})
	squat(t, fmt.Sprintf("tcp4://127.0.0.2:%d", port), apptest.Options{})
	squat(t, fmt.Sprintf("tcp6://:%d", port), apptest.Options{})
	squat(t, fmt.Sprintf("udp4://127.0.0.1:%d", port), apptest.Options{})
	e := inUseError(t, bound)
	if len(e.Holders) != 1 || e.Holders[0].PID != holder.PID {
		t.Errorf("holders %+v, not pid %d", e.Holders, holder.PID)
	}
}

func TestEvict(t *testing.T) {
	const long, short = time.Minute, time.Millisecond
	for name, test := range map[string]struct {
		env   []string
		grace time.Duration
	}{
		"a process that ends on TERM": {nil, long},
		"a process that ignores TERM": {[]string{"SQUAT_STUBBORN=yes"}, short},
	} {
		t.Run(name, func(t *testing.T) {
			before := apptest.Descriptors(t)
			holder, bound := squat(t, "127.0.0.1:0", apptest.Options{Env: test.env})
			apptest.Must(t, Evict(inUseError(t, bound), test.grace))
			var status unix.WaitStatus
			_, err := unix.Wait4(holder.PID, &status, 0, nil)
			apptest.Must(t, err)
			holder.Gone = true
			if want := map[bool]unix.Signal{true: unix.SIGKILL, false: unix.SIGTERM}[test.env != nil]; status.Signal() != want {
				t.Errorf("ended by %v", status.Signal())
			}
			apptest.Must(t, hold(t, bound).Close())
			if after := apptest.Descriptors(t); after != before+2 {
				t.Errorf("%d descriptors became %d, of which 2 are pipes to the app", before, after)
			}
		})
	}
}

func TestEvictSparesThoseWhoHaveLetGo(t *testing.T) {
	holder, bound := squat(t, "127.0.0.1:0", apptest.Options{})
	e := inUseError(t, bound)
	if got := holder.Ask(t, "close"); got != "<nil>" {
		t.Fatal(got)
	}
	apptest.Must(t, Evict(e, time.Minute))
	if got := holder.Ask(t, "close"); got != unix.EBADF.Error() {
		t.Error(got)
	}
	gone, bound := squat(t, "127.0.0.1:0", apptest.Options{})
	e = inUseError(t, bound)
	apptest.Must(t, unix.Kill(gone.PID, unix.SIGKILL))
	gone.Wait()
	apptest.Must(t, Evict(e, time.Minute))
}

func TestEvictRefuses(t *testing.T) {
	l := hold(t, "127.0.0.1:0")
	e := inUseError(t, l.Bound())
	if err := Evict(e, 0); err == nil || !strings.Contains(err.Error(), "never ends") {
		t.Errorf("grace itself: %v", err)
	}
	e.Holders = []sockdiag.Holder{{PID: 1, User: "root", Command: "init"}}
	if err := Evict(e, 0); err == nil || !strings.Contains(err.Error(), "systemctl stop") {
		t.Errorf("init: %v", err)
	}
	if err := Evict(&InUseError{Unseen: "it is dark"}, 0); err == nil || !strings.Contains(err.Error(), "it is dark") {
		t.Errorf("nobody: %v", err)
	}
}
