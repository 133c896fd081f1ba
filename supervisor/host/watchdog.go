package host

import (
	"time"

	"github.com/gracerun/grace/supervisor/machine"
)

// mostHeardInterval is at most between two tries to make a NOTIFY_SOCKET again.
const mostHeardInterval = 5 * time.Second

// heardInterval leaves the watchdog time: it is not to take an instance for hanging that cannot be heard.
func (a *Host) heardInterval() time.Duration {
	if watchdog := a.Options.Policy.Watchdog; watchdog > 0 {
		return min(mostHeardInterval, watchdog/4)
	}
	return mostHeardInterval
}

// lookAfter sees until the end of an instance that it can be heard: the directory of its NOTIFY_SOCKET goes at a logout, or with a
// cleaner of /tmp.
func (a *Host) lookAfter(app *InstanceProcess) {
	a.watching.Do(a.watchRuntime)
	go Guard(func() { a.keepHeard(app) }, a.Notice("cannot see any more whether the app has its NOTIFY_SOCKET"))()
}

// noteLoss gives what is closed when a NOTIFY_SOCKET may have gone.
func (a *Host) noteLoss() <-chan struct{} {
	select {
	case lost := <-a.runtimeLoss:
		return lost
	case <-a.Ending:
		return nil
	}
}

// keepHeard makes the instance's NOTIFY_SOCKET anew where it was removed, with the runtime directory. What the app has
// sent meanwhile went nowhere, and is missed by the watchdog for no fault of the app's.
func (a *Host) keepHeard(app *InstanceProcess) {
	for told := ""; ; {
		lost, retry := a.noteLoss(), (<-chan time.Time)(nil)
		if !app.notify.There() {
			told = a.renewNotify(app, told)
			if a.Options.Policy.Watchdog > 0 {
				a.Post(machine.Pinged{Instance: app.start.Instance})
			}
		}
		if told != "" {
			lost, retry = nil, time.After(a.heardInterval())
		}
		select {
		case <-lost:
		case <-retry:
		case <-app.ctx.Done():
			return
		}
	}
}

// renewNotify gives why it cannot, if it cannot, of which it tells unless it was told.
func (a *Host) renewNotify(app *InstanceProcess, told string) string {
	removed := app.notify.Path() + " was removed"
	made, err := a.Runtime.renewNotify(app.notify, app.launch.Identity)
	if err == nil {
		if made {
			a.Post(machine.Noticed{Text: "the app's NOTIFY_SOCKET was created again", Why: removed})
		}
		return ""
	}
	if err.Error() != told {
		a.Post(machine.Noticed{Text: "cannot create the app's NOTIFY_SOCKET again: the app's messages are lost and its watchdog is suspended until an upgrade", Why: removed + ": " + err.Error()})
	}
	return err.Error()
}
