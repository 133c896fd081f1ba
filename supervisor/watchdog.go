package supervisor

import "time"

// lookAfter sees until the end of an instance that the watchdog does not take it for hanging where it cannot be heard.
func (a *apps) lookAfter(app *app) {
	if a.options.Policy.Watchdog > 0 {
		go guard(func() { a.spare(app) }, a.notice("cannot see any more whether the app has its NOTIFY_SOCKET"))()
	}
}

// spare keeps the watchdog from an instance that cannot be heard: what it sends goes nowhere once its NOTIFY_SOCKET was
// removed, with the runtime directory, and that is no sign of a hang.
func (a *apps) spare(app *app) {
	ticks := time.NewTicker(a.options.Policy.Watchdog / 4)
	defer ticks.Stop()
	for told := false; ; {
		select {
		case <-ticks.C:
		case <-app.ctx.Done():
			return
		}
		if app.notify.There() {
			continue
		}
		if !told {
			a.post(noticed{"the app has lost its NOTIFY_SOCKET: the watchdog waits until an upgrade", app.notify.Path() + " was removed"})
			told = true
		}
		a.post(pinged{app.start.instance})
	}
}
