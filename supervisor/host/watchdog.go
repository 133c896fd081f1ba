package host

import (
	"time"

	"github.com/gracerun/grace/supervisor/machine"
)

// heardInterval is between two looks at whether an app can be heard: the directory of its NOTIFY_SOCKET goes at a logout, or with
// a cleaner of /tmp.
const heardInterval = 5 * time.Second

// lookAfter sees until the end of an instance that it can be heard, and that the watchdog does not take it for hanging
// where it cannot.
func (a *Host) lookAfter(app *InstanceProcess) {
	interval := heardInterval
	if watchdog := a.Options.Policy.Watchdog; watchdog > 0 {
		interval = min(interval, watchdog/4)
	}
	go Guard(func() { a.keepHeard(app, interval) }, a.Notice("cannot see any more whether the app has its NOTIFY_SOCKET"))()
}

// keepHeard makes the instance's NOTIFY_SOCKET anew where it was removed, with the runtime directory. What the app has
// sent meanwhile went nowhere, and is missed by the watchdog for no fault of the app's.
func (a *Host) keepHeard(app *InstanceProcess, interval time.Duration) {
	ticks := time.NewTicker(interval)
	defer ticks.Stop()
	for told := ""; ; {
		select {
		case <-ticks.C:
		case <-app.ctx.Done():
			return
		}
		if app.notify.There() {
			continue
		}
		told = a.renewNotify(app, told)
		if a.Options.Policy.Watchdog > 0 {
			a.Post(machine.Pinged{Instance: app.start.Instance})
		}
	}
}

// renewNotify gives why it cannot, if it cannot, of which it tells unless it was told.
func (a *Host) renewNotify(app *InstanceProcess, told string) string {
	removed := app.notify.Path() + " was removed"
	err := a.Runtime.renewNotify(app.notify, app.launch.Identity)
	if err == nil {
		a.Post(machine.Noticed{Text: "the app's NOTIFY_SOCKET was created again", Why: removed})
		return ""
	}
	if err.Error() != told {
		a.Post(machine.Noticed{Text: "cannot create the app's NOTIFY_SOCKET again: the app's messages are lost and its watchdog is suspended until an upgrade", Why: removed + ": " + err.Error()})
	}
	return err.Error()
}
