package supervisor

import (
	"context"
	"os"
	"testing"
	"time"
)

// An app that cannot be heard, as its NOTIFY_SOCKET was removed, is no hanging one.
func TestWatchdogSparesWhoCannotBeHeard(t *testing.T) {
	d := privateRuntimeDir(t)
	defer d.close()
	socket, why, err := d.openNotify(nil)
	if why != nil || err != nil {
		t.Fatal(why, err)
	}
	defer socket.Close()
	ctx, cancel := context.WithCancel(context.Background())
	posted := make(chan event, 100)
	a := &apps{post: func(ev event) { posted <- ev }}
	a.options.Policy.Watchdog = 8 * time.Millisecond
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		a.spare(&app{start: start{instance: 3}, ctx: ctx, notify: socket})
	}()
	if err := os.RemoveAll(d.path); err != nil {
		t.Fatal(err)
	}
	if told, ok := (<-posted).(noticed); !ok || told.why != socket.Path()+" was removed" {
		t.Errorf("first it tells %+v", told)
	}
	for range 3 {
		if ev := <-posted; ev != (pinged{3}) {
			t.Errorf("then it posts %+v", ev)
		}
	}
	cancel()
	for {
		select {
		case <-posted:
		case <-ended:
			return
		}
	}
}

// One that can be heard and says nothing is a hanging one.
func TestWatchdogSparesNobodyElse(t *testing.T) {
	d := privateRuntimeDir(t)
	defer d.close()
	socket, why, err := d.openNotify(nil)
	if why != nil || err != nil {
		t.Fatal(why, err)
	}
	defer socket.Close()
	if !socket.There() {
		t.Error("a socket that is there is taken for lost")
	}
}
