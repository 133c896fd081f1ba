package socket

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gracerun/grace/handoff/internal/apptest"
	"golang.org/x/sys/unix"
)

func init() {
	apptest.Roles["idler"] = func() {}
	apptest.Roles["flipper"] = func() { apptest.Flipper(func([]string) string { return "what?" }) }
	apptest.Roles["inetd service"] = inetdService
}

// The flag belongs to the open file description: what a start changed would be changed under the generation that serves.
func TestStartsLeaveTheBlockingFlagAlone(t *testing.T) {
	l := hold(t, "127.0.0.1:0")
	for _, nonBlocking := range []bool{false, true} {
		apptest.Must(t, unix.SetNonblock(l.FD(), nonBlocking))
		for _, dialects := range [][]string{nil, {"stdin"}, {"none"}} {
			grant := issue(t, dialects, l)
			apptest.Start(t, "idler", given(grant))
			apptest.Must(t, grant.Close())
			if got := blockingFlag(t, l) == 0; got == nonBlocking {
				t.Errorf("%v: non-blocking is %v after a start", dialects, !got)
			}
		}
	}
}

func TestNginxGetsNonBlockingListeners(t *testing.T) {
	listeners := []*Listener{hold(t, "127.0.0.1:0"), hold(t, "unix://"+t.TempDir()+"/s")}
	grant := issue(t, []string{"nginx"}, listeners...)
	if !slices.Equal(grant.Env, []string{"NGINX=3;4;"}) || len(grant.Files) != 2 {
		t.Errorf("environment %q, files %v", grant.Env, grant.Files)
	}
	for _, l := range listeners {
		if blockingFlag(t, l) == 0 {
			t.Errorf("a worker of nginx would hang in accept on %s", l.Bound())
		}
	}
}

func blockingFlag(t *testing.T, l *Listener) int {
	t.Helper()
	flags, err := unix.FcntlInt(uintptr(l.FD()), unix.F_GETFL, 0)
	apptest.Must(t, err)
	return flags & unix.O_NONBLOCK
}

// inetdService greets one client of the socket on its stdin.
func inetdService() {
	ln, err := net.FileListener(os.Stdin)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(apptest.InodeOrError(ln, nil), len(openFiles()))
}

// openFiles are the sockets of this process.
func openFiles() []string {
	var found []string
	descriptors, _ := filepath.Glob("/proc/self/fd/*")
	for _, descriptor := range descriptors {
		if link, _ := os.Readlink(descriptor); strings.HasPrefix(link, "socket:") {
			found = append(found, link)
		}
	}
	return slices.Compact(found)
}

func TestSocketOnStdin(t *testing.T) {
	l := hold(t, "127.0.0.1:0")
	service := apptest.Start(t, "inetd service", given(issue(t, []string{"stdin"}, l)))
	if got, want := service.Hear(t), fmt.Sprint(l.Inode(), 1); got != want {
		t.Errorf("the app's socket and their number are %s, not %s", got, want)
	}
}

func TestTableflipAppTakesItsSocketsAndGetsReady(t *testing.T) {
	before := apptest.Descriptors(t)
	path := t.TempDir() + "/s"
	written := []string{"tcp4://127.0.0.1:0", ":0", "unix://" + path, "udp4://127.0.0.1:0"}
	asked := []string{"listen tcp4 127.0.0.1:0", "listen tcp :0", "listen unix " + path, "packet udp4 127.0.0.1:0"}
	var listeners []*Listener
	for _, w := range written {
		listeners = append(listeners, hold(t, w))
	}
	grant := issue(t, []string{"tableflip"}, listeners...)
	flipper := apptest.Start(t, "flipper", given(grant))
	if got := flipper.Ask(t, "parent?"); got != "true" {
		t.Errorf("has a parent: %s", got)
	}
	for i, l := range listeners {
		if got := flipper.Ask(t, asked[i]); got != fmt.Sprint(l.Inode()) {
			t.Errorf("%s gives %s, not %d", asked[i], got, l.Inode())
		}
	}
	apptest.Must(t, grant.ready.SetReadDeadline(time.Now()))
	if n, err := grant.ready.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("ready before it said so: %d, %v", n, err)
	}
	apptest.Must(t, grant.ready.SetReadDeadline(time.Now().Add(apptest.Patience)))
	if got := flipper.Ask(t, "ready"); got != "<nil>" {
		t.Fatal(got)
	}
	if said, err := io.ReadAll(grant.ready); err != nil || string(said) != "*" {
		t.Errorf("readiness is %q, %v, not byte 42", said, err)
	}
	apptest.Must(t, grant.Predecessor.Close())
	if got := flipper.Ask(t, "alone"); got != "<nil>" {
		t.Errorf("the end of its predecessor is %s", got)
	}
	apptest.Must(t, errors.Join(grant.Close(), grant.Close()))
	for _, l := range listeners {
		apptest.Must(t, l.Close())
	}
	if after := apptest.Descriptors(t); after != before+2 {
		t.Errorf("%d descriptors became %d, of which 2 are pipes to the app", before, after)
	}
}

func TestTableflipAppThatEndsUnready(t *testing.T) {
	grant := issue(t, []string{"tableflip"}, hold(t, "127.0.0.1:0"))
	flipper := apptest.Start(t, "flipper", given(grant))
	apptest.Must(t, unix.Kill(flipper.PID, unix.SIGKILL))
	apptest.Must(t, grant.ready.SetReadDeadline(time.Now().Add(apptest.Patience)))
	if n, err := grant.ready.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("read %d, %v", n, err)
	}
}

func TestGrantThatWasNeverUsedLeaksNothing(t *testing.T) {
	l := hold(t, "127.0.0.1:0")
	d, err := ParseDialects([]string{"tableflip", "stdin"})
	apptest.Must(t, err)
	before := apptest.Descriptors(t)
	for range 3 {
		g, err := d.Plan(PlanRequest{Listeners: []*Listener{l}})
		apptest.Must(t, err)
		apptest.Must(t, g.Close())
		if g, err := d.Plan(PlanRequest{Listeners: []*Listener{l, l}}); err == nil {
			t.Errorf("two sockets on stdin: %+v", g)
		}
	}
	if after := apptest.Descriptors(t); after != before {
		t.Errorf("%d descriptors became %d", before, after)
	}
}

func TestMoreTableflipNamesThanAPipeHolds(t *testing.T) {
	d, err := ParseDialects([]string{"tableflip"})
	apptest.Must(t, err)
	listeners := slices.Repeat(known(t, nil, "unix:///"+strings.Repeat("p", 100)), 1000)
	if g, err := d.Plan(PlanRequest{Listeners: listeners}); err == nil || !strings.Contains(err.Error(), "1000 sockets") {
		t.Errorf("%+v, %v", g, err)
	}
}

func TestAwaitReadyWithoutThePipe(t *testing.T) {
	grant := issue(t, nil)
	if err := grant.AwaitReady(); grant.TellsReady() || err == nil {
		t.Errorf("tells %v, %v", grant.TellsReady(), err)
	}
	grant = issue(t, []string{"tableflip"})
	_, err := grant.given[0].Write([]byte{7})
	apptest.Must(t, err)
	if err := grant.AwaitReady(); err == nil || !strings.Contains(err.Error(), "byte 7") {
		t.Errorf("another byte: %v", err)
	}
}
