package host

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gracerun/grace/supervisor/machine"
)

// listened is an app whose NOTIFY_SOCKET is kept.
type listened struct {
	app    *InstanceProcess
	dir    RuntimeDir
	posted chan machine.Event
}

// quickWatchdog makes four tries in its time.
const quickWatchdog = 8 * time.Millisecond

func keepHeard(t *testing.T, watchdog time.Duration) listened {
	t.Helper()
	d := privateRuntimeDir(t)
	socket, why, err := d.openNotify(nil)
	if why != nil || err != nil {
		t.Fatal(why, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	l := listened{&InstanceProcess{start: machine.Start{Instance: 3}, ctx: ctx, notify: socket, launch: &LaunchSpec{}}, d, make(chan machine.Event)}
	a := &Host{Runtime: d, Ending: make(chan struct{}), Post: func(ev machine.Event) {
		select {
		case l.posted <- ev:
		case <-ctx.Done():
		}
	}}
	a.Options.Policy.Watchdog = watchdog
	a.watchRuntime()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		a.keepHeard(l.app)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
		close(a.Ending)
		socket.Close()
		d.Close()
	})
	return l
}

func (l listened) next(t *testing.T) machine.Event {
	t.Helper()
	select {
	case ev := <-l.posted:
		return ev
	case <-time.After(patience):
		t.Fatal("it posts nothing")
		return nil
	}
}

func (l listened) tells(t *testing.T, text string) {
	t.Helper()
	if told, ok := l.next(t).(machine.Noticed); !ok || told.Text != text || !strings.HasPrefix(told.Why, l.app.notify.Path()+" was removed") {
		t.Errorf("it tells %+v", told)
	}
}

func (l listened) pings(t *testing.T) {
	t.Helper()
	if ev := l.next(t); ev != (machine.Pinged{Instance: 3}) {
		t.Errorf("then it posts %+v", ev)
	}
}

// A running app is heard again after its NOTIFY_SOCKET was removed.
func TestNotifySocketIsMadeAnew(t *testing.T) {
	for _, watchdog := range []time.Duration{0, quickWatchdog} {
		t.Run(watchdog.String(), func(t *testing.T) {
			l := keepHeard(t, watchdog)
			for range 3 {
				// at once: what is removed piece by piece may be filled again meanwhile
				if err := os.Rename(l.dir.Path, filepath.Join(t.TempDir(), "removed")); err != nil {
					t.Fatal(err)
				}
				l.isHeardAgain(t, watchdog > 0)
			}
			if err := os.Remove(l.app.notify.Path()); err != nil {
				t.Fatal(err)
			}
			l.isHeardAgain(t, watchdog > 0)
		})
	}
}

func (l listened) isHeardAgain(t *testing.T, pings bool) {
	t.Helper()
	l.tells(t, "the app's NOTIFY_SOCKET was created again")
	if pings {
		l.pings(t)
	}
	conn, err := net.Dial("unixgram", l.app.notify.Path())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("WATCHDOG=1")); err != nil {
		t.Fatal(err)
	}
	if m, err := l.app.notify.Receive(func(int) bool { return true }); err != nil || !m.Watchdog {
		t.Errorf("%+v, %v", m, err)
	}
}

// What is closed at the end of its instance is not missed, though another loss may just have been noticed.
func TestClosedNotifySocketIsNotMissed(t *testing.T) {
	d := privateRuntimeDir(t)
	defer d.Close()
	socket, why, err := d.openNotify(nil)
	if err := errors.Join(why, err, socket.Close()); err != nil {
		t.Fatal(err)
	}
	a := &Host{Runtime: d, Post: func(ev machine.Event) { t.Errorf("it tells %+v", ev) }}
	if told := a.renewNotify(&InstanceProcess{notify: socket, launch: &LaunchSpec{}}, ""); told != "" || socket.There() {
		t.Errorf("it is made again: %s", told)
	}
}

// An app that cannot be heard, as its NOTIFY_SOCKET was removed and has no place any more, is no hanging one.
func TestWatchdogSparesWhoCannotBeHeard(t *testing.T) {
	l := keepHeard(t, quickWatchdog)
	parent := filepath.Dir(l.dir.Path)
	if err := os.Rename(parent, parent+".away"); err != nil {
		t.Fatal(err)
	}
	l.tells(t, "cannot create the app's NOTIFY_SOCKET again: the app's messages are lost and its watchdog is suspended until an upgrade")
	for range 3 {
		l.pings(t)
	}
	if err := os.Rename(parent+".away", parent); err != nil {
		t.Fatal(err)
	}
}

// One that can be heard and says nothing is a hanging one.
func TestWatchdogSparesNobodyElse(t *testing.T) {
	d := privateRuntimeDir(t)
	defer d.Close()
	socket, why, err := d.openNotify(nil)
	if why != nil || err != nil {
		t.Fatal(why, err)
	}
	defer socket.Close()
	if !socket.There() {
		t.Error("a socket that is there is taken for lost")
	}
}
