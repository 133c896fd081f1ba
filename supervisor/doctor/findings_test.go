package doctor

import (
	"strings"
	"testing"
	"time"

	"github.com/gracerun/grace/childproc"
)

// TestDeafPatient: an app that hangs ends in time, and is told of.
func TestDeafPatient(t *testing.T) {
	e := &examination{limit: 100 * time.Millisecond, options: Options{TestApp: []string{"app of a test", "deaf"}}}
	var err error
	if e.family, err = childproc.NewReaper(); err != nil {
		t.Fatal(err)
	}
	if e.checkHeld() {
		t.Error("an app that never spoke was taken for one that serves")
	}
	if len(e.findings) != 1 || e.findings[0].State != Missing || !strings.Contains(e.findings[0].Means, "killed") {
		t.Errorf("found %+v", e.findings)
	}
	e.checkCapture()
	// On a slow machine it is killed before it has become the app.
	if last := e.findings[len(e.findings)-1]; len(e.findings) == 1 || last.State != Missing || !strings.Contains(last.Means, "ended") {
		t.Errorf("found %+v", e.findings)
	}
}

func TestReportFollowsFromItsFindings(t *testing.T) {
	for name, c := range map[string]struct {
		findings       []Finding
		held, captured State
	}{
		"nothing wrong":            {[]Finding{{State: OK, serves: holding}, {State: OK, serves: capturing}}, OK, OK},
		"a comfort missing":        {[]Finding{{State: Missing, serves: comfort}}, OK, OK},
		"held needs it":            {[]Finding{{State: Missing, serves: holding}, {State: OK, serves: holding}}, Missing, Missing},
		"held has limits":          {[]Finding{{State: Limited, serves: holding}}, Limited, Limited},
		"captured needs it":        {[]Finding{{State: Missing, serves: capturing}, {State: Limited, serves: capturing}}, OK, Missing},
		"captured has limits":      {[]Finding{{State: Limited, serves: capturing}}, OK, Limited},
		"limits do not hide worse": {[]Finding{{State: Limited, serves: holding}, {State: Missing, serves: capturing}}, Limited, Missing},
	} {
		t.Run(name, func(t *testing.T) {
			if r := newReport(c.findings); r.Held != c.held || r.Captured != c.captured {
				t.Errorf("held %s, captured %s; want %s and %s", r.Held, r.Captured, c.held, c.captured)
			}
		})
	}
}

func TestKeeper(t *testing.T) {
	for name, c := range map[string]struct {
		serviceManager serviceManager
		delay, drain   time.Duration
		state          State
		says           string
	}{
		"docker kills first":     {docker, 0, 30 * time.Second, Limited, "stop_grace_period to 35s, or --drain-timeout to 5s"},
		"docker waits":           {docker, 0, 5 * time.Second, OK, ""},
		"kubernetes kills first": {kubernetes, 0, 30 * time.Second, Limited, "terminationGracePeriodSeconds of the pod to 35s"},
		"kubernetes waits":       {kubernetes, 0, 20 * time.Second, OK, ""},
		"kubernetes kills after the delay": {kubernetes, 10 * time.Second, 20 * time.Second, Limited,
			"terminationGracePeriodSeconds of the pod to 35s, or --drain-delay plus --drain-timeout to 25s"},
		"systemd waits":           {systemd, 0, 30 * time.Second, OK, ""},
		"systemd kills first":     {systemd, 0, 2 * time.Minute, Limited, "TimeoutStopSec= in the unit to 2m5s"},
		"nobody is there to kill": {nobody, 0, time.Hour, OK, ""},
	} {
		t.Run(name, func(t *testing.T) {
			e := &examination{options: Options{DrainDelay: c.delay, DrainTimeout: c.drain}, environment: environment{manager: c.serviceManager}}
			if f := e.serviceManager(); f.State != c.state || !strings.Contains(f.Do, c.says) {
				t.Errorf("found %+v", f)
			}
		})
	}
}

func TestTracing(t *testing.T) {
	for name, c := range map[string]struct {
		environment environment
		says        string
	}{
		"kubernetes": {environment{manager: kubernetes}, "securityContext"},
		"docker":     {environment{manager: docker, ptraceScope: 2}, "--cap-add SYS_PTRACE"},
		"Yama":       {environment{manager: systemd, ptraceScope: 2}, "yama.ptrace_scope=1"},
		"machine":    {environment{manager: nobody, ptraceScope: 1}, "app's user"},
	} {
		if advice := c.environment.tracing(); !strings.Contains(advice, c.says) {
			t.Errorf("%s: %s", name, advice)
		}
	}
}

func TestAnnouncing(t *testing.T) {
	for manager, says := range map[serviceManager]string{
		kubernetes: "SYS_PTRACE added to its securityContext.capabilities", docker: "--cap-add SYS_PTRACE", nobody: "CAP_NET_ADMIN",
	} {
		if advice := (environment{manager: manager}).announcing(); !strings.Contains(advice, says) {
			t.Errorf("%s: %s", manager, advice)
		}
	}
}

func TestTracingAnotherUser(t *testing.T) {
	e := &examination{environment: environment{manager: docker}, identity: &childproc.Identity{}}
	if advice := e.tracing(); !strings.Contains(advice, "leave --user out") || !strings.Contains(advice, "SYS_PTRACE") {
		t.Error(advice)
	}
	e.identity = nil
	if advice := e.tracing(); strings.Contains(advice, "--user") {
		t.Error(advice)
	}
}

func TestSeeKeeper(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
	if k := detectServiceManager(); k != kubernetes {
		t.Errorf("in a pod: %s", k)
	}
}
