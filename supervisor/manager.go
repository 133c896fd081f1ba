package supervisor

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gracerun/grace/handoff"
	"github.com/gracerun/grace/supervisor/machine"
	"golang.org/x/sys/unix"
)

// manager is grace's own service manager, systemd, as one that hears what
// happens: by sd_notify(3). It belongs to the loop, but for speak.
type manager struct {
	policy   machine.Policy
	messages chan string
	said     chan struct{} // closed when no more is sent

	stage   managed
	serving int            // the generation that does, or 0
	lines   map[int]string // what was said last of each generation
	outcome string         // of the last upgrade, if it failed
	status  string         // what was sent last
}

// managed is the state of a unit that is told to the service manager.
type managed string

const (
	unitStarting  managed = "starting"
	unitServing   managed = ""
	unitUpgrading managed = "upgrading"
	unitStopping  managed = "stopping"
)

// lease is how long after one sign of progress another one comes.
const lease = 3 * machine.NextProgress

const (
	// unsent is room for messages while the service manager is busy.
	unsent = 256
	// lastWords is how long it may be busy when grace ends.
	lastWords = 2 * time.Second
)

// openManager opens the way to the service manager that NOTIFY_SOCKET names. If
// there is none, nothing is said.
func openManager(p machine.Policy, post func(machine.Event)) *manager {
	m := &manager{policy: p, messages: make(chan string, unsent), said: make(chan struct{}), lines: map[int]string{}}
	go m.speak(post)
	return m
}

// attend has it hear what happens in the loop, and see that the loop lives.
func (m *manager) attend(l *loop) {
	l.audience = append(l.audience, m)
	if period := watchdogPeriod(); period > 0 {
		l.pulse, l.beat = time.NewTicker(period).C, func() { m.send("WATCHDOG=1") }
	}
}

// begin tells that grace starts. A check before the first start of the app may
// take its time.
func (m *manager) begin() {
	m.stage = unitStarting
	m.tell("", m.policy.ReadyTimeout)
}

// resume tells that grace serves already.
func (m *manager) resume(generation int) {
	m.Hear(time.Time{}, machine.Report{Fact: machine.FactServing, Generation: generation})
}

// close returns when all has been said, or nobody listens.
func (m *manager) close() {
	close(m.messages)
	select {
	case <-m.said:
	case <-time.After(lastWords):
	}
}

// hear tells of what has happened.
func (m *manager) Hear(_ time.Time, r machine.Report) {
	m.remember(r)
	message, within := m.turn(r)
	m.tell(message, max(within, r.Within))
}

// turn changes the stage, and gives what is to be said of that, and how long the
// next stage may take before there is progress to report.
func (m *manager) turn(r machine.Report) (message string, within time.Duration) {
	if m.stage == unitStopping {
		return "", 0
	}
	switch r.Fact {
	case machine.FactServing, machine.FactUpgraded:
		m.stage, m.serving = unitServing, r.Generation
		return "READY=1", 0
	case machine.FactUpgrading:
		m.stage, m.outcome = unitUpgrading, ""
		return reloading(), m.policy.ReadyTimeout
	case machine.FactFailed, machine.FactUndone:
		return m.endUpgrade(r), 0
	case machine.FactRefused:
		return m.endRefused(r), 0
	case machine.FactStopping:
		m.stage = unitStopping
		return "STOPPING=1", m.policy.DrainDelay
	}
	return "", 0
}

// endUpgrade: of the first start the exit status tells.
func (m *manager) endUpgrade(r machine.Report) string {
	if m.stage == unitStarting {
		m.stage, m.outcome = unitStopping, r.Text+": "+r.Why
		return ""
	}
	m.stage, m.outcome = unitServing, fmt.Sprintf("upgrade to generation %d %s: %s", r.Generation, r.Fact, r.Why)
	return "READY=1"
}

// endRefused answers systemd's Type=notify-reload, which waits for both words
// after its signal, and has none for a refusal. Together they say that it was over
// at once (service_notify_message in systemd's src/core/service.c).
func (m *manager) endRefused(r machine.Report) string {
	if m.stage != unitServing {
		return ""
	}
	m.outcome = "upgrade refused: " + r.Why
	return reloading() + "\nREADY=1"
}

// reloading has the time, by which systemd sees that it comes after its signal.
func reloading() string {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) // it cannot fail with a clock that there is
	return fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", now.Nano()/1000)
}

// remember keeps one line about each generation, from its beginning until it has
// ended or failed.
func (m *manager) remember(r machine.Report) {
	_, known := m.lines[r.Generation]
	name := fmt.Sprintf("generation %d", r.Generation)
	what := strings.TrimPrefix(r.Text, "generation ")
	switch {
	case r.Generation == 0:
	case r.Fact == machine.FactDrained, r.Fact == machine.FactFailed, r.Fact == machine.FactUndone:
		delete(m.lines, r.Generation)
	case r.Fact == machine.FactServing, r.Fact == machine.FactUpgraded, m.well(r):
		m.lines[r.Generation] = name + " serves"
	case !known && r.Fact != machine.FactUpgrading && m.stage != unitStarting:
	case r.Why == "":
		m.lines[r.Generation] = name + ": " + what
	default:
		m.lines[r.Generation] = name + ": " + what + ": " + r.Why
	}
}

// well: of the instances that serve only trouble is news.
func (m *manager) well(r machine.Report) bool {
	return r.Generation == m.serving && r.Instance != 0 && r.Level <= machine.Info && m.stage != unitStopping
}

// tell adds to the message what state grace is in, and how long it may take to
// its next word.
func (m *manager) tell(message string, within time.Duration) {
	var words []string
	if message != "" {
		words = append(words, message)
	}
	if m.stage != unitServing {
		words = append(words, fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", (within+lease).Microseconds()))
	}
	if status := m.describe(); status != m.status {
		m.status = status
		words = append(words, "STATUS="+status)
	}
	if len(words) > 0 {
		m.send(strings.Join(words, "\n"))
	}
}

// longestStatus keeps a message below the 4096 bytes that systemd reads.
const longestStatus = 1000

func (m *manager) describe() string {
	var parts []string
	if m.stage != unitServing {
		parts = append(parts, string(m.stage))
	}
	for _, number := range slices.Backward(slices.Sorted(maps.Keys(m.lines))) {
		parts = append(parts, m.lines[number])
	}
	if m.outcome != "" {
		parts = append(parts, m.outcome)
	}
	text := strings.Join(strings.Fields(strings.Join(parts, "; ")), " ")
	return strings.ToValidUTF8(text[:min(len(text), longestStatus)], "")
}

// follow has the service manager take another process for grace. The sign of life
// is for the time until the other one gives its first.
func (m *manager) follow(pid int) { m.send(fmt.Sprintf("MAINPID=%d\nWATCHDOG=1", pid)) }

// send does not block: what finds no room is lost.
func (m *manager) send(message string) {
	select {
	case m.messages <- message:
	default:
	}
}

// speak sends what there is to say. That it cannot is told once.
func (m *manager) speak(post func(machine.Event)) {
	defer close(m.said)
	told := false
	for message := range m.messages {
		if err := handoff.Notify(message); err != nil && !told {
			told = true
			post(machine.Noticed{Text: "cannot tell grace's own service manager", Why: err.Error()})
		}
	}
}

// watchdogPeriod is the time between two signs of life, 0 if nobody wants any:
// half of what the service manager waits, as sd_watchdog_enabled(3) has it.
func watchdogPeriod() time.Duration {
	if pid := os.Getenv("WATCHDOG_PID"); pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return 0
	}
	limit, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	if err != nil || limit <= 0 {
		return 0
	}
	return time.Duration(limit) * time.Microsecond / 2
}

// inheritWatchdog: systemd's watchdog was promised the signs of life of the old grace's pid.
func inheritWatchdog(before int) error {
	if os.Getenv("WATCHDOG_PID") != strconv.Itoa(before) {
		return nil
	}
	return os.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
}
