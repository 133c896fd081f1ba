package supervisor

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gracerun/grace/supervisor/control"
	"github.com/gracerun/grace/supervisor/machine"
	"golang.org/x/sys/unix"
)

// systemd is the other end of a manager.
type systemd struct {
	t    *testing.T
	conn *net.UnixConn
}

func newSystemd(t *testing.T, addr string) *systemd {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: addr, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	t.Setenv("NOTIFY_SOCKET", addr)
	return &systemd{t, conn}
}

// hears wants the next message to be this one.
func (s *systemd) hears(want string) {
	s.t.Helper()
	if got := moment.ReplaceAllString(s.next(), "MONOTONIC_USEC=0"); got != want {
		s.t.Errorf("it is told %q\nand not   %q", got, want)
	}
}

func (s *systemd) next() string {
	s.t.Helper()
	if err := s.conn.SetReadDeadline(time.Now().Add(2 * time.Minute)); err != nil {
		s.t.Fatal(err)
	}
	message := make([]byte, 8192)
	n, err := s.conn.Read(message)
	if err != nil {
		s.t.Fatal(err)
	}
	return string(message[:n])
}

func socketPath(t *testing.T) string { return filepath.Join(t.TempDir(), "notify") }

// manage gives a manager that has nobody to complain to.
func manage(t *testing.T, p machine.Policy) *sdNotifier {
	t.Helper()
	m := openSDNotifier(p, func(ev machine.Event) { t.Errorf("it complains: %v", ev) })
	t.Cleanup(m.close)
	return m
}

var moment = regexp.MustCompile(`MONOTONIC_USEC=\d+`)

// Each message is awaited before the next report.
func TestServiceManagerIsTold(t *testing.T) {
	policy := machine.Policy{ReadyTimeout: time.Minute, DrainTimeout: 30 * time.Second, DrainDelay: 40 * time.Second}
	type told struct {
		report machine.Report
		want   string
	}
	start := []told{
		{machine.Report{Fact: machine.TroubleNoticed, Said: "the terminal was closed"}, "EXTEND_TIMEOUT_USEC=15000000"},
		{machine.Report{Fact: machine.InstanceStarted, Generation: 1, Instance: 1}, "EXTEND_TIMEOUT_USEC=15000000\nSTATUS=starting; generation 1: instance started"},
		{machine.Report{Fact: machine.InstanceNotReady, Generation: 1, Instance: 1, Why: machine.Said("nothing waits")}, "EXTEND_TIMEOUT_USEC=15000000\nSTATUS=starting; generation 1: not ready yet: nothing waits"},
		{machine.Report{Fact: machine.InstanceNotReady, Generation: 1, Instance: 1, Why: machine.Said("nothing waits")}, "EXTEND_TIMEOUT_USEC=15000000"},
		{machine.Report{Fact: machine.FirstReady, Generation: 1}, "READY=1\nSTATUS=generation 1 serves"},
	}
	begin := []told{
		{machine.Report{Fact: machine.UpgradeBegun, Generation: 2}, "RELOADING=1\nMONOTONIC_USEC=0\nEXTEND_TIMEOUT_USEC=75000000\nSTATUS=upgrading; generation 2: upgrade begins; generation 1 serves"},
		{machine.Report{Fact: machine.InstanceStarted, Generation: 2, Instance: 2}, "EXTEND_TIMEOUT_USEC=15000000\nSTATUS=upgrading; generation 2: instance started; generation 1 serves"},
	}
	for name, reports := range map[string][]told{
		"upgraded": append(begin,
			told{machine.Report{Fact: machine.GenerationReady, Generation: 2}, "EXTEND_TIMEOUT_USEC=15000000\nSTATUS=upgrading; generation 2: ready; generation 1 serves"},
			told{machine.Report{Fact: machine.GenerationDraining, Generation: 1, Within: 30 * time.Second}, "EXTEND_TIMEOUT_USEC=45000000\nSTATUS=upgrading; generation 2: ready; generation 1: draining"},
			told{machine.Report{Fact: machine.UpgradeDone, Generation: 2}, "READY=1\nSTATUS=generation 2 serves; generation 1: draining"},
			told{machine.Report{Fact: machine.DrainProgress, Connections: new(12), Generation: 1}, "STATUS=generation 2 serves; generation 1: draining (12 connections in flight)"},
			told{machine.Report{Fact: machine.GenerationDrained, Generation: 1, Why: machine.HasDrained}, "STATUS=generation 2 serves"},
		),
		"failed": append(begin,
			told{machine.Report{Fact: machine.UpgradeFailed, Serving: 1, Generation: 2, Why: machine.Said("exit\nstatus  7")}, "READY=1\nSTATUS=generation 1 serves; upgrade to generation 2 failed: exit status 7"},
			told{machine.Report{Fact: machine.FailedGenerationEnded, Generation: 2, Why: machine.HasFailed}, ""},
			told{machine.Report{Fact: machine.UpgradeBegun, Generation: 3}, "RELOADING=1\nMONOTONIC_USEC=0\nEXTEND_TIMEOUT_USEC=75000000\nSTATUS=upgrading; generation 3: upgrade begins; generation 1 serves"},
		),
		"undone": append(begin,
			told{machine.Report{Fact: machine.UpgradeUndone, Serving: 1, Generation: 2, Why: machine.Said("killed")}, "READY=1\nSTATUS=generation 1 serves; upgrade to generation 2 undone: killed"},
		),
		"refused": {
			{machine.Report{Fact: machine.UpgradeRefused, Why: machine.Said("there is no way")}, "RELOADING=1\nMONOTONIC_USEC=0\nREADY=1\nSTATUS=generation 1 serves; upgrade refused: there is no way"},
		},
		"crashed": {
			{machine.Report{Fact: machine.InstanceCrashed, Generation: 1, Instance: 1, Why: machine.Exit{Signal: 9}}, "STATUS=generation 1: instance ended: signal: killed"},
			{machine.Report{Fact: machine.InstanceRestarting, Generation: 1, Instance: 2, Why: machine.Exit{Signal: 9}}, "STATUS=generation 1: restarting: signal: killed"},
			{machine.Report{Fact: machine.InstanceStarted, Generation: 1, Instance: 2}, "STATUS=generation 1 serves"},
		},
		"stopped": {
			{machine.Report{Fact: machine.Stopping, Within: 30 * time.Second}, "STOPPING=1\nEXTEND_TIMEOUT_USEC=55000000\nSTATUS=stopping; generation 1 serves"},
			{machine.Report{Fact: machine.UpgradeRefused, Why: machine.GraceStopping}, "EXTEND_TIMEOUT_USEC=15000000"},
			{machine.Report{Fact: machine.ServingBeforeDrain, Within: 40 * time.Second}, "EXTEND_TIMEOUT_USEC=55000000"},
			{machine.Report{Fact: machine.GenerationDraining, Generation: 1, Within: 30 * time.Second}, "EXTEND_TIMEOUT_USEC=45000000\nSTATUS=stopping; generation 1: draining"},
			{machine.Report{Fact: machine.InstanceEnded, Generation: 1, Instance: 1, Why: machine.Exit{}}, "EXTEND_TIMEOUT_USEC=15000000\nSTATUS=stopping; generation 1: instance ended: exit status 0"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, m := newSystemd(t, socketPath(t)), manage(t, policy)
			m.begin()
			s.hears("EXTEND_TIMEOUT_USEC=75000000\nSTATUS=starting")
			for _, told := range append(start, reports...) {
				m.hear(time.Time{}, worded(told.report))
				if told.want != "" {
					s.hears(told.want)
				}
			}
		})
	}
}

func TestServiceManagerIsToldOfAFailedStart(t *testing.T) {
	s, m := newSystemd(t, socketPath(t)), manage(t, machine.Policy{})
	m.begin()
	m.hear(time.Time{}, worded(machine.Report{Fact: machine.InstanceFailed, Generation: 1, Instance: 1}))
	m.hear(time.Time{}, worded(machine.Report{Fact: machine.FirstFailed, Generation: 1, Why: machine.Said("exit status 7")}))
	s.next()
	s.next()
	s.hears("EXTEND_TIMEOUT_USEC=15000000\nSTATUS=stopping; first generation failed: exit status 7")
}

func TestReloadingHasTheTime(t *testing.T) {
	var before, after unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &before); err != nil {
		t.Fatal(err)
	}
	_, said, _ := strings.Cut(reloading(), "MONOTONIC_USEC=")
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &after); err != nil {
		t.Fatal(err)
	}
	if at, err := strconv.ParseInt(said, 10, 64); err != nil || at < before.Nano()/1000 || at > after.Nano()/1000 {
		t.Errorf("it is %q, between %d and %d", said, before.Nano()/1000, after.Nano()/1000)
	}
}

func TestServiceManagerAtAnAbstractAddress(t *testing.T) {
	s, m := newSystemd(t, "@grace-test-"+strconv.Itoa(os.Getpid())), manage(t, machine.Policy{})
	m.resume(3)
	s.hears("READY=1\nSTATUS=generation 3 serves")
	m.follow(4711)
	s.hears("MAINPID=4711\nWATCHDOG=1")
}

// A loop that hangs sends no sign of life.
func TestServiceManagerSeesThatTheLoopLives(t *testing.T) {
	s, m := newSystemd(t, socketPath(t)), manage(t, machine.Policy{})
	t.Setenv("WATCHDOG_USEC", "20000")
	l := newLoop(machine.Policy{}, "nowhere")
	(&fakeHost{}).attach(l)
	m.attend(l)
	go l.run()
	for range 3 {
		s.hears("WATCHDOG=1")
	}
	answer := make(chan control.Status)
	l.statusRequests <- answer // which nobody takes: the loop hangs
	if beats := s.untilSilent(); beats > unsent {
		t.Errorf("%d signs of life while the loop hangs", beats)
	}
	<-answer
	s.hears("WATCHDOG=1")
	l.post(machine.KillRequested{})
	<-l.done
}

// untilSilent counts the messages before 20 periods without one.
func (s *systemd) untilSilent() (n int) {
	for ; n <= unsent; n++ {
		if err := s.conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
			s.t.Fatal(err)
		}
		if _, err := s.conn.Read(make([]byte, 8192)); err != nil {
			return n
		}
	}
	return n
}

// What was said before grace ends is sent.
func TestLastWordsAreSent(t *testing.T) {
	s := newSystemd(t, socketPath(t))
	m := openSDNotifier(machine.Policy{}, nil)
	for n := range 9 {
		m.follow(n)
	}
	m.close()
	for n := range 9 {
		s.hears(fmt.Sprintf("MAINPID=%d\nWATCHDOG=1", n))
	}
}

func TestStatusIsShort(t *testing.T) {
	s, m := newSystemd(t, socketPath(t)), manage(t, machine.Policy{})
	m.hear(time.Time{}, worded(machine.Report{Fact: machine.UpgradeRefused, Why: machine.Said(strings.Repeat("ö", longestStatus))}))
	_, status, _ := strings.Cut(s.next(), "STATUS=")
	if len(status) > longestStatus || len(status) < longestStatus-1 || strings.ToValidUTF8(status, "") != status {
		t.Errorf("%d bytes: %q", len(status), status)
	}
}

func TestWithoutServiceManagerNothingIsSaid(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	manage(t, machine.Policy{}).begin()
}

func TestDeafServiceManagerIsToldOfOnce(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", socketPath(t))
	complaints := make(chan machine.Event, 9)
	m := openSDNotifier(machine.Policy{}, func(ev machine.Event) { complaints <- ev })
	for range 5 {
		m.send("WATCHDOG=1")
	}
	m.close()
	if len(complaints) != 1 {
		t.Errorf("%d complaints", len(complaints))
	}
}

// Nothing waits for one that does not read.
func TestBusyServiceManagerHoldsNobodyUp(t *testing.T) {
	newSystemd(t, socketPath(t))
	m := openSDNotifier(machine.Policy{}, func(machine.Event) {})
	for range 2000 { // more than the kernel and the manager have room for
		m.send("WATCHDOG=1")
	}
}

func TestWatchdogPeriod(t *testing.T) {
	own := strconv.Itoa(os.Getpid())
	for _, test := range []struct {
		usec, pid string
		want      time.Duration
	}{
		{"", "", 0},
		{"20000000", own, 10 * time.Second},
		{"20000000", "", 10 * time.Second},
		{"20000000", "1", 0},
		{"0", own, 0},
		{"-1", own, 0},
		{"soon", own, 0},
	} {
		t.Setenv("WATCHDOG_USEC", test.usec)
		t.Setenv("WATCHDOG_PID", test.pid)
		if got := watchdogPeriod(); got != test.want {
			t.Errorf("%+v: %s", test, got)
		}
	}
}
