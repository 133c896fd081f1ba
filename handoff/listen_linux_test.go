package handoff

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestFreshListenersAreNotMultipath(t *testing.T) {
	ln, err := Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	control(ln, func(fd int) {
		if protocol, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL); protocol != unix.IPPROTO_TCP {
			t.Errorf("the protocol is %d, %v", protocol, err)
		}
	})
}

func TestGraceAndItsAppsUnderstandEachOther(t *testing.T) {
	for _, dialect := range []string{"systemd", "server-starter", "einhorn", "nginx", "php-fpm"} {
		t.Run(dialect, func(t *testing.T) {
			dialects, err := ParseDialects([]string{dialect})
			must(t, err)
			web := hold(t, "web=127.0.0.1:0")
			api := hold(t, "api=unix://"+filepath.Join(t.TempDir(), "api"))
			dns := hold(t, "dns=udp://[::1]:0")
			grant, err := dialects.Issue(Issue{Listeners: []*Listener{web, api, dns}, Generation: 1, Parent: os.Getpid()})
			must(t, err)
			role := "heir"
			if len(grant.PIDVars) > 0 {
				role = "systemd heir"
			}
			asks := []string{
				"ListenPacket,udp," + dns.Bound(), "Listen,unix," + api.Bound(),
				"Listen,tcp," + web.Bound(), "Listen,tcp," + web.Bound(),
			}
			got := startHeir(t, role, []any{web, api, dns}, grant.Env, asks)
			for n, l := range []*Listener{dns, api, web} {
				if want := (bequest{l.Inode(), ""}); got[n] != want {
					t.Errorf("%s gives %+v, not %+v", asks[n], got[n], want)
				}
			}
			if !strings.Contains(got[3].Error, "address already in use") {
				t.Errorf("asking again gives %+v", got[3])
			}
			checkGreeting(t, "unix", api.Bound())
			checkGreeting(t, "tcp", web.Bound())
		})
	}
}
