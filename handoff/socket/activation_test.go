package socket

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/gracerun/grace/handoff/internal/apptest"
	"github.com/gracerun/grace/handoff/internal/inherited"
	"golang.org/x/sys/unix"
)

func init() {
	apptest.Roles["activated"] = holdPassedSockets
}

// holding is what a grace tells of a listener.
type holding struct {
	Name, Network, Bound, Error string
	Inode                       uint64
}

// holdPassedSockets is a grace that its service manager gave sockets. It takes those it is told to, and at "close" closes them.
func holdPassedSockets() {
	if os.Getenv("LISTEN_PID") == "" {
		os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
	}
	var held []*Listener
	apptest.Obey(func(order string) string {
		if order == "close" {
			for _, l := range held {
				l.Close()
			}
			return "closed"
		}
		answer := holding{}
		a, err := ParseAddress(order)
		if err == nil {
			var l *Listener
			if l, err = Bind(a); err == nil {
				held = append(held, l)
				answer = holding{Name: l.Name(), Network: l.Network(), Bound: l.Bound(), Inode: l.Inode()}
			}
		}
		if err != nil {
			answer.Error = err.Error()
		}
		text, err := json.Marshal(answer)
		if err != nil {
			panic(err)
		}
		return string(text)
	})
}

// activate starts a grace as systemd does, with these descriptors and variables.
func activate(t *testing.T, names string, files []int, env ...string) *apptest.App {
	t.Helper()
	if len(files) > 0 {
		env = append(env, fmt.Sprintf("LISTEN_FDS=%d", len(files)), "LISTEN_FDNAMES="+names)
	}
	return apptest.Start(t, "activated", given(&SocketPlan{Stdin: -1, Files: files}, env...))
}

func take(t *testing.T, a *apptest.App, written string) (got holding) {
	t.Helper()
	apptest.Must(t, json.Unmarshal([]byte(a.Ask(t, written)), &got))
	return got
}

func TestPassedSocketsAreHeld(t *testing.T) {
	folder := t.TempDir()
	var files []int
	var listeners []*Listener
	for _, written := range []string{
		"127.0.0.1:0", "udp://[::1]:0", "unix://" + folder + "/s", "unixgram://" + folder + "/g", "unix://@" + folder,
	} {
		l := hold(t, written)
		listeners, files = append(listeners, l), append(files, l.FD())
	}
	manager := activate(t, "web:dns:path:log:abstract", files)
	for n, written := range []string{"fd://web", "fd://dns", "x=fd://path", "fd://6", "last=fd://7", "fd://web"} {
		l := listeners[n%5]
		name, _, found := strings.Cut(written, "=")
		if !found {
			name = strings.TrimPrefix(written, "fd://")
		}
		want := holding{Name: name, Network: l.Network(), Bound: l.Bound(), Inode: l.Inode()}
		if got := take(t, manager, written); got != want {
			t.Errorf("%s is %+v, not %+v", written, got, want)
		}
	}
	manager.Ask(t, "close")
	for _, path := range []string{"s", "g"} {
		if _, err := os.Lstat(filepath.Join(folder, path)); err != nil {
			t.Errorf("the service manager's path has gone: %v", err)
		}
		if _, err := os.Lstat(filepath.Join(folder, "."+path+".grace")); err == nil {
			t.Errorf("the second name of %s is left", path)
		}
	}
	for _, l := range []*Listener{listeners[0], listeners[2], listeners[4]} {
		apptest.Dial(t, l.Network(), l.Bound())
	}
}

func TestPassedPathIsProtected(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l := hold(t, "unix://"+path)
	apptest.Must(t, os.Remove(spareName(path))) // the service manager has none
	held := holdPassed(t, l.FD())
	apptest.Must(t, os.Remove(path))
	apptest.Must(t, held.Revive())
	apptest.Dial(t, "unix", path)
}

// holdPassed takes a descriptor as if it had been passed.
func holdPassed(t *testing.T, fd int) *Listener {
	t.Helper()
	s := inherited.Socket{FD: fd}
	apptest.Must(t, checkHeld(&s))
	held, err := holdInherited(&s, Address{Name: "web"})
	apptest.Must(t, err)
	t.Cleanup(func() { held.Close() })
	return held
}

func TestPassedSocketStaysTheManagersInASuccessor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	state := holdPassed(t, hold(t, "unix://"+path).FD()).State()
	here, err := unix.FcntlInt(uintptr(state.FD), unix.F_DUPFD_CLOEXEC, 0)
	apptest.Must(t, err)
	heir, err := TakeOverListener(state, Descriptors{state.FD: here})
	apptest.Must(t, err)
	apptest.Must(t, heir.Close())
	apptest.Dial(t, "unix", path)
}

// A predecessor that was killed may have left it so.
func TestSuccessorSharesNoAddress(t *testing.T) {
	apptest.RequireRoot(t)
	for name, c := range map[string]struct {
		l      *Listener
		shared int
	}{
		"held":   {hold(t, "127.0.0.1:0"), 0},
		"passed": {holdPassed(t, hold(t, "127.0.0.1:0").FD()), 1},
	} {
		apptest.Must(t, unix.SetsockoptInt(c.l.FD(), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
		state := c.l.State()
		here, err := unix.FcntlInt(uintptr(state.FD), unix.F_DUPFD_CLOEXEC, 0)
		apptest.Must(t, err)
		heir, err := TakeOverListener(state, Descriptors{state.FD: here})
		apptest.Must(t, err)
		if got, err := unix.GetsockoptInt(heir.FD(), unix.SOL_SOCKET, unix.SO_REUSEPORT); err != nil || got != c.shared {
			t.Errorf("%s: SO_REUSEPORT is %d, %v", name, got, err)
		}
		apptest.Must(t, heir.Close())
	}
}

func TestShutDownSocketIsPassed(t *testing.T) {
	// A port that the kernel chose would be given back.
	tcp, path := hold(t, apptest.FreePort(t, "127.0.0.77").String()), hold(t, "unix://"+filepath.Join(t.TempDir(), "s"))
	for _, l := range []*Listener{tcp, path} {
		apptest.Must(t, unix.Shutdown(l.FD(), unix.SHUT_RDWR))
	}
	manager := activate(t, "tcp:path", []int{tcp.FD(), path.FD()})
	if got := take(t, manager, "fd://tcp"); got.Inode != tcp.Inode() {
		t.Errorf("%+v", got)
	}
	apptest.Dial(t, "tcp", tcp.Bound())
	if got := take(t, manager, "fd://path"); !strings.Contains(got.Error, "restart the .socket unit") {
		t.Errorf("%+v", got)
	}
}

func TestUnfitDescriptorsAreRefused(t *testing.T) {
	file, err := os.Open(os.DevNull)
	apptest.Must(t, err)
	defer file.Close()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	apptest.Must(t, err)
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	var kinds []int
	for _, kind := range [][2]int{{unix.AF_NETLINK, unix.SOCK_RAW}, {unix.AF_UNIX, unix.SOCK_SEQPACKET}, {unix.AF_INET, unix.SOCK_DGRAM}} {
		fd, err := unix.Socket(kind[0], kind[1]|unix.SOCK_CLOEXEC, 0)
		apptest.Must(t, err)
		defer unix.Close(fd)
		kinds = append(kinds, fd)
	}
	web := hold(t, "127.0.0.1:0")
	files := []int{int(file.Fd()), pair[0], kinds[0], kinds[1], kinds[2], web.FD(), web.FD()}
	manager := activate(t, "file:connection:netlink:packets:unbound:web:web", files)
	for written, reason := range map[string]string{
		"fd://file":       "descriptor 3 is not a socket",
		"fd://connection": "leave Accept=yes out",
		"fd://netlink":    "descriptor 5 is neither TCP nor UDP",
		"fd://packets":    "descriptor 6 is neither TCP nor UDP",
		"fd://unbound":    "descriptor 7 has no address",
		"fd://web":        "fits several sockets",
		"fd://api":        "only 3 (file), 4 (connection), 5 (netlink), 6 (packets), 7 (unbound), 8 (web), 9 (web)",
		"fd://2":          "no socket of this name",
	} {
		if got := take(t, manager, written).Error; !strings.HasPrefix(got, "cannot take "+written) || !strings.Contains(got, reason) {
			t.Errorf("%s: %s", written, got)
		}
	}
	if got := take(t, manager, web.Bound()).Error; !strings.HasSuffix(got, "; grace itself has it") {
		t.Error(got)
	}
	if got := take(t, manager, "fd://9"); got.Inode != web.Inode() {
		t.Errorf("%+v", got)
	}
}

// pass gives this process descriptors as a service manager does, but not from 3 on, which this process has itself.
func pass(t *testing.T, names string, files ...int) (first int) {
	t.Helper()
	first = 300
	for n, file := range files {
		apptest.Must(t, unix.Dup3(file, first+n, unix.O_CLOEXEC))
		t.Cleanup(func() { unix.Close(first + n) })
	}
	t.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
	t.Setenv("LISTEN_FDS", strconv.Itoa(first-inherited.FirstFile+len(files)))
	t.Setenv("LISTEN_FDNAMES", strings.Repeat("other:", first-inherited.FirstFile)+names)
	return first
}

func TestPassedSocketIsFoundByNameAndByNumber(t *testing.T) {
	web, api := hold(t, "127.0.0.1:0"), hold(t, "unix://"+t.TempDir()+"/s")
	first := pass(t, "web:api", web.FD(), api.FD())
	for written, want := range map[string]*Listener{
		"fd://web":                      web,
		"fd://api":                      api,
		"fd://" + strconv.Itoa(first+1): api,
	} {
		got := hold(t, written)
		if got.Inode() != want.Inode() || got.Bound() != want.Bound() || got.Network() != want.Network() {
			t.Errorf("%s is %s://%s", written, got.Network(), got.Bound())
		}
	}
}

func TestSocketThatIsNotPassedIsRefused(t *testing.T) {
	var files [2]int
	apptest.Must(t, unix.Pipe2(files[:], unix.O_CLOEXEC))
	defer unix.Close(files[0])
	defer unix.Close(files[1])
	web := hold(t, "127.0.0.1:0")
	pass(t, "web:web:pipe", web.FD(), web.FD(), files[0])
	for written, reason := range map[string]string{
		"fd://web":  "fits several sockets",
		"fd://api":  "no socket of this name was passed to grace, only 3 (other), ",
		"fd://2":    "no socket of this name",
		"fd://pipe": "descriptor 302 is not a socket",
	} {
		mustRefuse(t, written, reason)
	}
	t.Setenv("LISTEN_FDS", "3000000")
	mustRefuse(t, "fd://web", "LISTEN_FDS=3000000 announces")
	t.Setenv("LISTEN_PID", "1")
	mustRefuse(t, "fd://web", `LISTEN_PID is "1"`)
	t.Setenv("LISTEN_FDS", "")
	mustRefuse(t, "fd://web", "LISTEN_FDS is not set")
}

func mustRefuse(t *testing.T, written, reason string) {
	t.Helper()
	err := bindError(t, written)
	if !strings.HasPrefix(err.Error(), "cannot take "+written+": ") || !strings.Contains(err.Error(), reason) {
		t.Errorf("%s: %v", written, err)
	}
}
