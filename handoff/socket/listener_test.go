package socket

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gracerun/grace/handoff/internal/apptest"
	"golang.org/x/sys/unix"
)

func init() {
	apptest.Roles["binder"] = binder
}

// binder binds what it is told and answers with the address or the error.
func binder() {
	apptest.Obey(func(written string) string {
		a, err := ParseAddress(written)
		if err != nil {
			return err.Error()
		}
		l, err := Bind(a)
		if err != nil {
			return err.Error()
		}
		return l.Bound()
	})
}

func option(t *testing.T, l *Listener, level, name int) int {
	t.Helper()
	value, err := unix.GetsockoptInt(l.FD(), level, name)
	apptest.Must(t, err)
	return value
}

func TestBind(t *testing.T) {
	folder := t.TempDir()
	tests := []struct {
		written, bound string // "*" in bound stands for a port
		dial           string
	}{
		{"127.0.0.1:0", "127.0.0.1:*", "tcp"},
		{"tcp4://:0", "0.0.0.0:*", "tcp"},
		{"localhost:0", "127.0.0.1:*", "tcp"},
		{"udp4://127.0.0.1:0", "127.0.0.1:*", "udp"},
		{"unix://" + folder + "/s", folder + "/s", "unix"},
		{"unixgram://" + folder + "/g", folder + "/g", "unixgram"},
		{"unix://@" + folder, "@" + folder, "unix"},
		{"unixgram://@g" + folder, "@g" + folder, "unixgram"},
	}
	for _, test := range tests {
		t.Run(test.written, func(t *testing.T) {
			l := hold(t, "name="+test.written)
			if host, ok := strings.CutSuffix(test.bound, "*"); !strings.HasPrefix(l.Bound(), host) || !ok && l.Bound() != test.bound {
				t.Errorf("bound %s, not %s", l.Bound(), test.bound)
			}
			if l.Name() != "name" || l.Network() != l.Address().Network || strings.HasSuffix(l.Bound(), ":0") {
				t.Errorf("%s, %s, %s", l.Name(), l.Network(), l.Bound())
			}
			checkDescriptor(t, l)
			apptest.Dial(t, test.dial, l.Bound())
			if !l.Stream() {
				return
			}
			fd, _, err := unix.Accept(l.FD())
			apptest.Must(t, err)
			unix.Close(fd)
		})
	}
}

func checkDescriptor(t *testing.T, l *Listener) {
	t.Helper()
	flags, err := unix.FcntlInt(uintptr(l.FD()), unix.F_GETFD, 0)
	if err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("not close-on-exec: %#x, %v", flags, err)
	}
	flags, err = unix.FcntlInt(uintptr(l.FD()), unix.F_GETFL, 0)
	if err != nil || flags&unix.O_NONBLOCK != 0 {
		t.Errorf("does not block: %#x, %v", flags, err)
	}
	link, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", l.FD()))
	if want := fmt.Sprintf("socket:[%d]", l.Inode()); err != nil || link != want {
		t.Errorf("the descriptor is %s, %v, the inode says %s", link, err, want)
	}
}

func TestBoundTCPIsPlainAndReusable(t *testing.T) {
	l := hold(t, "127.0.0.1:0")
	if got := option(t, l, unix.SOL_SOCKET, unix.SO_PROTOCOL); got != unix.IPPROTO_TCP {
		t.Errorf("protocol %d is not TCP", got)
	}
	if option(t, l, unix.SOL_SOCKET, unix.SO_REUSEADDR) == 0 {
		t.Error("no SO_REUSEADDR: a restart would have to wait for old connections")
	}
	if option(t, l, unix.SOL_SOCKET, unix.SO_REUSEPORT) != 0 {
		t.Error("SO_REUSEPORT: others could take connections away")
	}
}

func TestV6Only(t *testing.T) {
	if probe, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		t.Skip("no IPv6 here: ", err)
	} else {
		unix.Close(probe)
	}
	for written, only := range map[string]int{
		":0": 0, "[::]:0": 0, ":0?v6only=true": 1, ":0?v6only=false": 0,
		"tcp6://:0": 1, "tcp6://:0?v6only=false": 0, "udp://:0": 0, "udp6://:0": 1,
	} {
		t.Run(written, func(t *testing.T) {
			l := hold(t, written)
			if !strings.HasPrefix(l.Bound(), "[::]:") {
				t.Errorf("bound %s", l.Bound())
			}
			if got := option(t, l, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY); got != only {
				t.Errorf("IPV6_V6ONLY is %d", got)
			}
		})
	}
}

func TestWithoutTheFamilyTheNextHostIsBound(t *testing.T) {
	// An address of the documentation prefix fails as every IPv6 address does where IPv6 is off.
	missing, present := netip.MustParseAddrPort("[2001:db8::1]:0"), netip.MustParseAddrPort("127.0.0.1:0")
	a := Address{Name: "x", Network: "tcp", Addr: ":0"}
	l, err := bindFirst(a, []netip.AddrPort{missing, present}, sharing{})
	apptest.Must(t, err)
	defer l.Close()
	if !strings.HasPrefix(l.Bound(), "127.0.0.1:") {
		t.Errorf("bound %s", l.Bound())
	}
	if l, err := bindFirst(a, []netip.AddrPort{missing}, sharing{}); !errors.Is(err, unix.EADDRNOTAVAIL) ||
		!strings.Contains(err.Error(), "does not have the address 2001:db8::1") {
		t.Errorf("bound %v, %v", l, err)
	}
	// Another reason is not covered up by the next host.
	taken := hold(t, "127.0.0.1:0")
	if l, err := bindFirst(a, []netip.AddrPort{netip.MustParseAddrPort(taken.Bound()), present}, sharing{}); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("bound %v, %v", l, err)
	}
}

func TestBacklog(t *testing.T) {
	longest, err := os.ReadFile("/proc/sys/net/core/somaxconn")
	apptest.Must(t, err)
	for written, want := range map[string]string{
		"127.0.0.1:0": strings.TrimSpace(string(longest)), "127.0.0.1:0?backlog=5": "5",
	} {
		l := hold(t, written)
		for range 2 {
			info, err := unix.GetsockoptTCPInfo(l.FD(), unix.IPPROTO_TCP, unix.TCP_INFO)
			apptest.Must(t, err)
			if got := strconv.Itoa(int(info.Sacked)); got != want {
				t.Errorf("%s has room for %s", written, got)
			}
			apptest.Must(t, unix.Shutdown(l.FD(), unix.SHUT_RD))
			apptest.Must(t, l.Revive())
		}
	}
}

func TestBindExplains(t *testing.T) {
	folder := t.TempDir()
	apptest.Must(t, os.WriteFile(folder+"/file", nil, 0o600))
	apptest.Must(t, os.Symlink(folder+"/file", folder+"/link"))
	for written, reason := range map[string]string{
		"192.0.2.1:80":                             "this machine does not have the address 192.0.2.1",
		"no-such-host.invalid:80":                  "no-such-host.invalid",
		"[fe80::1%nolink]:80":                      "zone nolink",
		"unix://" + folder + "/none/s":             "create the directory " + folder + "/none first",
		"unix://" + folder + "/file":               "not a socket",
		"unix://" + folder + "/link":               "not a socket",
		"unix://" + folder + "/s?owner=no-such-1":  "no-such-1",
		"unix://" + folder + "/s?group=no-such-1":  "no-such-1",
		"unix://" + folder + "/s?group=4294967295": "4294967295",
	} {
		if err := bindError(t, written); !strings.Contains(err.Error(), reason) || !strings.HasPrefix(err.Error(), "cannot bind ") {
			t.Errorf("%s: %v", written, err)
		}
	}
	if left, err := os.ReadDir(folder); len(left) != 2 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestBindExplainsMissingRights(t *testing.T) {
	apptest.RequireRoot(t)
	folder := t.TempDir()
	apptest.Must(t, errors.Join(os.Chmod(folder, 0o755), os.Chmod(filepath.Dir(folder), 0o755)))
	hold(t, "unix://"+folder+"/closed?mode=0600")
	// A network namespace of its own has the kernel's default for privileged ports.
	unprivileged := apptest.Start(t, "binder", apptest.Options{UID: apptest.Nobody, Flags: unix.CLONE_NEWNET})
	for written, reason := range map[string]string{
		"tcp4://:80":                   "net.ipv4.ip_unprivileged_port_start",
		"unix://" + folder + "/s":      fmt.Sprintf("uid %d may not write to %s", apptest.Nobody, folder),
		"unix://" + folder + "/closed": "may not check whether it is in use",
	} {
		if got := unprivileged.Ask(t, written); !strings.Contains(got, reason) || !strings.Contains(got, "permission denied") {
			t.Errorf("%s: %s", written, got)
		}
	}
}

func TestUnixPathModeAndOwner(t *testing.T) {
	apptest.RequireRoot(t)
	old := unix.Umask(0o027)
	defer unix.Umask(old)
	for options, want := range map[string]struct {
		mode     fs.FileMode
		uid, gid uint32
	}{
		"":                                {0o750, 0, 0},
		"?mode=0666":                      {0o666, 0, 0},
		"?mode=0600&owner=nobody":         {0o600, apptest.Nobody, 0},
		"?mode=0660&owner=0&group=123456": {0o660, 0, 123456},
		"?group=daemon":                   {0o750, 0, 1},
	} {
		for _, network := range []string{"unix", "unixgram"} {
			l := hold(t, network+"://"+t.TempDir()+"/s"+options)
			var stat unix.Stat_t
			apptest.Must(t, unix.Lstat(l.Bound(), &stat))
			if mode := fs.FileMode(stat.Mode & 0o777); mode != want.mode || stat.Uid != want.uid || stat.Gid != want.gid {
				t.Errorf("%s%s: mode %o, owner %d, group %d", network, options, mode, stat.Uid, stat.Gid)
			}
		}
	}
}

func TestUnixPathIsClosedUntilItsModeIsSet(t *testing.T) {
	a := Address{Network: "unixgram", Addr: t.TempDir() + "/s", Mode: 0o666}
	l, err := newListener(a, unix.AF_UNIX)
	apptest.Must(t, err)
	defer l.Close()
	apptest.Must(t, prepareMode(l.fd, a.Mode))
	apptest.Must(t, unix.Bind(l.fd, &unix.SockaddrUnix{Name: a.Addr}))
	var stat unix.Stat_t
	apptest.Must(t, unix.Lstat(a.Addr, &stat))
	if stat.Mode&0o777 != 0 {
		t.Errorf("born with mode %o", stat.Mode&0o777)
	}
}

func TestModeIsNotSetThroughALink(t *testing.T) {
	folder := t.TempDir()
	l := hold(t, "unix://"+folder+"/s")
	apptest.Must(t, os.WriteFile(folder+"/victim", nil, 0o600))
	apptest.Must(t, os.Remove(folder+"/s"))
	for _, link := range []func(old, new string) error{os.Symlink, os.Link} {
		apptest.Must(t, link(folder+"/victim", folder+"/s"))
		if err := SetMode(folder+"/s", l.path, -1, -1, 0o666); err == nil {
			t.Error("a link passed for the socket")
		}
		if info, err := os.Stat(folder + "/victim"); err != nil || info.Mode() != 0o600 {
			t.Errorf("the file behind the link has mode %v, %v", info.Mode(), err)
		}
		apptest.Must(t, os.Remove(folder+"/s"))
	}
}

func TestStaleUnixPathIsReplaced(t *testing.T) {
	for _, network := range []string{"unix", "unixgram"} {
		path := t.TempDir() + "/s"
		stale := hold(t, network+"://"+path)
		apptest.Must(t, unix.Close(stale.fd))
		stale.fd = -1
		l := hold(t, network+"://"+path)
		apptest.Dial(t, network, path)
		name, err := unix.Getsockname(l.FD())
		apptest.Must(t, err)
		// nginx and h2o recognise an inherited socket by this.
		if got := name.(*unix.SockaddrUnix).Name; got != path {
			t.Errorf("getsockname gives %s", got)
		}
		apptest.Must(t, l.Close())
		if files, err := os.ReadDir(filepath.Dir(path)); len(files) != 0 {
			t.Errorf("left behind: %v, %v", files, err)
		}
	}
}

func TestServedUnixPathIsLeftAlone(t *testing.T) {
	for served, wanted := range map[string]string{
		"unix": "unix", "unixgram": "unixgram", "unix?backlog=1": "unixgram", "unixgram?mode=0600": "unix",
	} {
		served, options, _ := strings.Cut(served, "?")
		path := t.TempDir() + "/s"
		l := hold(t, served+"://"+path+"?"+options)
		var inUse *InUseError
		if err := bindError(t, wanted+"://"+path); !errors.As(err, &inUse) {
			t.Errorf("%s in place of %s: %v", wanted, served, err)
		}
		apptest.Must(t, l.Close())
	}
}

func TestUnixPathWithAFullQueueIsLeftAlone(t *testing.T) {
	path := t.TempDir() + "/s"
	l := hold(t, "unix://"+path+"?backlog=1")
	for {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		apptest.Must(t, err)
		defer unix.Close(fd)
		if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err == unix.EAGAIN {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if err := bindError(t, "unix://"+path); !errors.Is(err, unix.EADDRINUSE) {
		t.Error(err)
	}
	if _, err := os.Lstat(l.Bound()); err != nil {
		t.Error(err)
	}
}

func TestCloseRemovesOnlyItsOwnPath(t *testing.T) {
	path := t.TempDir() + "/s"
	l := hold(t, "unix://"+path)
	apptest.Must(t, os.Rename(path, path+".old"))
	successor := hold(t, "unix://"+path)
	apptest.Must(t, l.Close())
	apptest.Dial(t, "unix", path)
	apptest.Must(t, successor.Close())
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("its own path is still there: %v", err)
	}
	apptest.Must(t, successor.Close())
	apptest.Must(t, os.Remove(path+".old"))
}

func TestFailedBindsLeakNothing(t *testing.T) {
	before := apptest.Descriptors(t)
	taken := hold(t, "127.0.0.1:0")
	path := hold(t, "unix://"+t.TempDir()+"/s")
	for range 20 {
		bindError(t, taken.Bound())
		bindError(t, "unix://"+path.Bound())
		bindError(t, "192.0.2.1:80")
		bindError(t, "unix://"+t.TempDir()+"/none/s")
	}
	apptest.Must(t, errors.Join(taken.Close(), path.Close()))
	if after := apptest.Descriptors(t); after != before {
		t.Errorf("%d descriptors became %d", before, after)
	}
}

func TestRevive(t *testing.T) {
	for _, written := range []string{"127.0.0.1:0", "tcp6://[::1]:0", "unix://" + t.TempDir() + "/s"} {
		t.Run(written, func(t *testing.T) {
			l := hold(t, written)
			fd, inode, bound := l.FD(), l.Inode(), l.Bound()
			apptest.Must(t, l.Revive())
			if l.Inode() != inode {
				t.Error("a listener that works was replaced")
			}
			network := strings.TrimRight(l.Network(), "6")
			for _, how := range []int{unix.SHUT_RD, unix.SHUT_RDWR} {
				apptest.Must(t, unix.Shutdown(l.FD(), how))
				if conn, err := net.Dial(network, bound); !errors.Is(err, unix.ECONNREFUSED) {
					t.Fatalf("a listener that was shut down answers: %v, %v", conn, err)
				}
				if err := l.Revive(); network == "tcp" && err != nil || network == "unix" && err != ErrReplaced {
					t.Fatal(err)
				}
				apptest.Dial(t, network, bound)
			}
			if l.FD() != fd || l.Bound() != bound || network == "tcp" && l.Inode() != inode {
				t.Errorf("became descriptor %d, %s, inode %d", l.FD(), l.Bound(), l.Inode())
			}
			checkDescriptor(t, l)
			apptest.Must(t, l.Close())
			if _, err := os.Lstat(bound); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the path is still there: %v", err)
			}
		})
	}
}

// An app that has got the socket is its last owner then.
func TestLetGo(t *testing.T) {
	for _, written := range []string{"127.0.0.1:0", "tcp6://[::1]:0", "unix://" + t.TempDir() + "/s"} {
		t.Run(written, func(t *testing.T) {
			l := hold(t, written)
			apps, err := unix.Dup(l.FD())
			apptest.Must(t, err)
			fd, inode, network := l.FD(), l.Inode(), strings.TrimRight(l.Network(), "6")
			apptest.Must(t, l.LetGo())
			apptest.Must(t, l.LetGo())
			apptest.Dial(t, network, l.Bound())
			apptest.Must(t, unix.Shutdown(apps, unix.SHUT_RD))
			if err := l.Revive(); err != ErrLetGo {
				t.Errorf("revive: %v", err)
			}
			apptest.Must(t, unix.Close(apps))
			if conn, err := net.Dial(network, l.Bound()); !errors.Is(err, unix.ECONNREFUSED) {
				t.Errorf("without the app: %v, %v", conn, err)
			}
			if l.Held() || l.FD() != fd || l.Inode() != inode {
				t.Errorf("held: %t, descriptor %d of %d, inode %d of %d", l.Held(), l.FD(), fd, l.Inode(), inode)
			}
			checkIdle(t, l)
			apptest.Must(t, l.Close())
			if _, err := os.Lstat(l.Bound()); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the path is still there: %v", err)
			}
			apptest.Must(t, l.LetGo()) // where nothing is left
		})
	}
}

func TestTurnAway(t *testing.T) {
	for _, written := range []string{"127.0.0.1:0", "tcp6://[::1]:0", "unix://" + t.TempDir() + "/s"} {
		t.Run(written, func(t *testing.T) {
			l, network := hold(t, written), strings.SplitN(written, ":", 2)[0]
			if network != "unix" {
				network = "tcp"
			}
			waits := apptest.Dial(t, network, l.Bound())
			for range 2 {
				if away, err := l.TurnAway(); !away || err != nil {
					t.Fatalf("%t, %v", away, err)
				}
			}
			if conn, err := net.DialTimeout(network, l.Bound(), 50*time.Millisecond); err == nil {
				t.Errorf("%v came in", conn.LocalAddr())
			}
			if err := l.Revive(); err != ErrLetGo {
				t.Errorf("revive: %v", err)
			}
			apptest.AcceptNext(t, l.FD(), waits)
			state := l.State()
			here, err := unix.FcntlInt(uintptr(l.FD()), unix.F_DUPFD_CLOEXEC, 0)
			apptest.Must(t, err)
			heir, err := TakeOverListener(state, Descriptors{state.FD: here})
			apptest.Must(t, err)
			defer heir.Close()
			apptest.AcceptNext(t, heir.FD(), apptest.Dial(t, network, heir.Bound()))
		})
	}
}

func TestWhoIsNotTurnedAway(t *testing.T) {
	filtered := hold(t, "127.0.0.1:0")
	all := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0xffffffff}
	apptest.Must(t, unix.SetsockoptSockFprog(filtered.FD(), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &all}))
	for name, l := range map[string]*Listener{
		"with a filter of the app's": filtered,
		"passed":                     holdPassed(t, hold(t, "127.0.0.1:0").FD()),
		"passed path":                holdPassed(t, hold(t, "unix://"+t.TempDir()+"/s").FD()),
		"abstract":                   hold(t, "unix://@turned-away-"+filepath.Base(t.TempDir())+strconv.Itoa(os.Getpid())),
	} {
		if away, err := l.TurnAway(); away || err != nil {
			t.Errorf("%s: %t, %v", name, away, err)
		}
		apptest.Dial(t, l.Network(), l.Bound())
	}
}

// checkIdle: nobody who still asks by the number must meet a socket that has to do with the address.
func checkIdle(t *testing.T, l *Listener) {
	t.Helper()
	if !apptest.CloseOnExec(l.FD()) {
		t.Error("an app would inherit it")
	}
	if listens, err := unix.GetsockoptInt(l.FD(), unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err != nil || listens != 0 {
		t.Errorf("listens: %d, %v", listens, err)
	}
	var stat unix.Stat_t
	if err := unix.Fstat(l.FD(), &stat); err != nil || stat.Ino == l.Inode() {
		t.Errorf("inode %d, %v", stat.Ino, err)
	}
}

func TestReviveOfOtherSockets(t *testing.T) {
	apptest.Must(t, hold(t, "udp4://127.0.0.1:0").Revive())
	apptest.Must(t, hold(t, "unixgram://@g"+t.TempDir()).Revive())
	abstract := hold(t, "unix://@"+t.TempDir())
	apptest.Must(t, unix.Shutdown(abstract.FD(), unix.SHUT_RD))
	if err := abstract.Revive(); err == nil || !strings.Contains(err.Error(), "restart grace") {
		t.Error(err)
	}
}

func TestRemovedUnixPathIsRestored(t *testing.T) {
	for _, network := range []string{"unix", "unixgram"} {
		folder := t.TempDir()
		path := folder + "/s"
		l := hold(t, network+"://"+path)
		apptest.Must(t, os.Remove(path))
		apptest.Must(t, l.Revive())
		apptest.Dial(t, network, path)
		apptest.Must(t, os.Remove(path))
		apptest.Must(t, os.WriteFile(path, nil, 0o600))
		apptest.Must(t, l.Revive())
		if info, err := os.Lstat(path); err != nil || !info.Mode().IsRegular() {
			t.Errorf("another's file became %v, %v", info, err)
		}
		apptest.Must(t, os.Remove(path))
		apptest.Must(t, l.Revive())
		apptest.Must(t, l.Close())
		if left, err := os.ReadDir(folder); len(left) != 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
	}
}

func TestUnixPathWithoutASpareName(t *testing.T) {
	path := t.TempDir() + "/s"
	apptest.Must(t, os.Mkdir(spareName(path), 0o700))
	l := hold(t, "unix://"+path)
	watch(t, l)
	apptest.Must(t, os.Remove(path))
	apptest.Must(t, l.Revive())
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	apptest.Must(t, l.Close())
}

func TestSpareNameOfAKilledGraceIsTakenOver(t *testing.T) {
	path := t.TempDir() + "/s"
	killed := hold(t, "unix://"+path)
	apptest.Must(t, unix.Close(killed.fd))
	l := hold(t, "unix://"+path)
	apptest.Must(t, os.Remove(path))
	apptest.Must(t, l.Revive())
	apptest.Dial(t, "unix", path)
	killed.fd = -1
}
