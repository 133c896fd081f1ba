package socket

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/gracerun/grace/handoff/internal/apptest"
	"golang.org/x/sys/unix"
)

func init() {
	apptest.Roles["server"] = server
}

// server accepts from its sockets and closes each connection at once; "shutdown FD" shuts one of them down, "remove
// PATH" removes a file.
func server() {
	for fd := 3; ; fd++ {
		ln, err := net.FileListener(os.NewFile(uintptr(fd), "inherited"))
		if err != nil {
			break
		}
		go apptest.CloseAccepted(ln)
	}
	apptest.Obey(func(order string) string {
		if path, ok := strings.CutPrefix(order, "remove "); ok {
			return fmt.Sprint(os.Remove(path))
		}
		var fd int
		if _, err := fmt.Sscanf(order, "shutdown %d", &fd); err != nil {
			return err.Error()
		}
		return fmt.Sprint(unix.Shutdown(fd, unix.SHUT_RD))
	})
}

func watch(t *testing.T, listeners ...*Listener) *HangupWatch {
	t.Helper()
	w, err := NewHangupWatch(listeners)
	apptest.Must(t, err)
	t.Cleanup(func() { w.Close() })
	return w
}

func TestHangupWatchTellsWhichListenerAnAppShutDown(t *testing.T) {
	first, second, local := hold(t, "127.0.0.1:0"), hold(t, "[::1]:0"), hold(t, "unix://"+t.TempDir()+"/s")
	datagrams := hold(t, "udp4://127.0.0.1:0")
	w := watch(t, datagrams, first, second, local)
	old := apptest.Start(t, "server", given(issue(t, nil, first, second, local)))
	for range 3 {
		for _, l := range []*Listener{second, first, local} {
			fd := 3 + map[*Listener]int{first: 0, second: 1, local: 2}[l]
			if l == local {
				// A replaced socket is another one than the app's.
				apptest.Must(t, unix.Shutdown(l.FD(), unix.SHUT_RD))
			} else if got := old.Ask(t, fmt.Sprintf("shutdown %d", fd)); got != "<nil>" {
				t.Fatal(got)
			}
			got, err := w.Wait()
			apptest.Must(t, err)
			if got != l {
				t.Fatalf("%s is reported for %s", got.Bound(), l.Bound())
			}
			if err := l.Revive(); err != nil && err != ErrReplaced {
				t.Fatal(err)
			}
		}
	}
}

func TestHangupWatchTellsWhichPathAnAppRemoved(t *testing.T) {
	folder := t.TempDir()
	first, second := hold(t, "unix://"+folder+"/a"), hold(t, "unixgram://"+folder+"/b")
	w := watch(t, hold(t, "127.0.0.1:0"), first, second)
	old := apptest.Start(t, "server", given(issue(t, nil, first)))
	for range 3 {
		for _, l := range []*Listener{second, first} {
			apptest.Must(t, os.Chmod(first.Bound(), 0o700))
			apptest.Must(t, os.WriteFile(folder+"/unrelated", nil, 0o600))
			old.Do(t, "remove "+l.Bound())
			got, err := w.Wait()
			apptest.Must(t, err)
			if got != l {
				t.Fatalf("%s is reported for %s", got.Bound(), l.Bound())
			}
			apptest.Must(t, l.Revive())
			apptest.Dial(t, l.Network(), l.Bound())
		}
	}
	// A replaced socket has another path to watch.
	apptest.Must(t, unix.Shutdown(first.FD(), unix.SHUT_RD))
	for _, want := range []error{ErrReplaced, nil} {
		if got, err := w.Wait(); got != first {
			t.Fatal(got, err)
		}
		if err := first.Revive(); err != want {
			t.Fatal(err)
		}
		apptest.Dial(t, "unix", first.Bound())
		apptest.Must(t, os.Remove(first.Bound()))
	}
}

func TestHangupWatchSeesWhatWasShutDownBefore(t *testing.T) {
	l := hold(t, "127.0.0.1:0")
	apptest.Must(t, unix.Shutdown(l.FD(), unix.SHUT_RD))
	if got, err := watch(t, l).Wait(); got != l || err != nil {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestHangupWatchCloses(t *testing.T) {
	before := apptest.Descriptors(t)
	l := hold(t, "127.0.0.1:0")
	w := watch(t, l)
	ended := make(chan error)
	for range 2 {
		go func() {
			_, err := w.Wait()
			ended <- err
		}()
	}
	apptest.Must(t, w.Close())
	for range 2 {
		if err := <-ended; !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	}
	apptest.Must(t, errors.Join(w.Close(), l.Close()))
	if after := apptest.Descriptors(t); after != before {
		t.Errorf("%d descriptors became %d", before, after)
	}
}

// The reason for epoll with no events: a thread that traffic wakes would cost as much as a proxy.
func TestConnectionsDoNotWakeTheHangupWatch(t *testing.T) {
	const connections = 3000
	tcp, local := hold(t, "127.0.0.1:0"), hold(t, "unix://"+t.TempDir()+"/s")
	apptest.Start(t, "server", given(issue(t, nil, tcp, local)))
	w := watch(t, tcp, local)
	thread, hung := make(chan int, 1), make(chan *Listener)
	go func() {
		runtime.LockOSThread()
		thread <- unix.Gettid()
		l, _ := w.Wait()
		hung <- l
	}()
	tid := <-thread
	apptest.AwaitState(t, "(*HangupWatch).Wait")
	before := apptest.Switches(t, tid)
	for range connections / 2 {
		for _, l := range []*Listener{tcp, local} {
			conn, err := net.DialTimeout(l.Network(), l.Bound(), apptest.Patience)
			apptest.Must(t, err)
			apptest.Must(t, conn.SetDeadline(time.Now().Add(apptest.Patience)))
			// The end of the connection shows that the app has accepted it.
			if n, _ := conn.Read(make([]byte, 1)); n != 0 {
				t.Fatal("the app speaks")
			}
			conn.Close()
		}
	}
	// Whoever the poller wakes has its thread switched to, which the kernel counts when it goes to sleep again.
	if woken := apptest.Switches(t, tid) - before; woken > apptest.Signals {
		t.Errorf("woken %d times by %d connections", woken, connections)
	}
	apptest.Must(t, unix.Shutdown(tcp.FD(), unix.SHUT_RD))
	if got := <-hung; got != tcp {
		t.Errorf("got %v", got)
	}
}
