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
	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// sdNotifier is grace's own service manager, systemd, as one that hears what
// happens: by sd_notify(3). It belongs to the loop, but for speak.
type sdNotifier struct {
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

// openSDNotifier opens the way to the service manager that NOTIFY_SOCKET names. If
// there is none, nothing is said.
func openSDNotifier(p machine.Policy, post func(machine.Event)) *sdNotifier {
	m := &sdNotifier{policy: p, messages: make(chan string, unsent), said: make(chan struct{}), lines: map[int]string{}}
	go m.speak(post)
	return m
}

// attend has it hear what happens in the loop, and see that the loop lives.
func (m *sdNotifier) attend(l *loop) {
	l.audience = append(l.audience, m)
	if period := watchdogPeriod(); period > 0 {
		l.pulse, l.beat = time.NewTicker(period).C, func() { m.send("WATCHDOG=1") }
	}
}

// begin tells that grace starts. A check before the first start of the app may
// take its time.
func (m *sdNotifier) begin() {
	m.stage = unitStarting
	m.tell("", m.policy.ReadyTimeout)
}

// resume tells that grace serves already.
func (m *sdNotifier) resume(generation int) {
	m.hear(time.Time{}, worded(machine.Report{Fact: machine.FirstReady, Generation: generation}))
}

// close returns when all has been said, or nobody listens.
func (m *sdNotifier) close() {
	close(m.messages)
	select {
	case <-m.said:
	case <-time.After(lastWords):
	}
}

// hear tells of what has happened.
func (m *sdNotifier) hear(_ time.Time, l line) {
	m.remember(l)
	message, within := m.turn(l)
	m.tell(message, max(within, l.Within))
}

// turn changes the stage, and gives what is to be said of that, and how long the
// next stage may take before there is progress to report.
func (m *sdNotifier) turn(l line) (message string, within time.Duration) {
	if m.stage == unitStopping {
		return "", 0
	}
	switch l.event {
	case eventServing, eventUpgraded:
		m.stage, m.serving = unitServing, l.Generation
		return "READY=1", 0
	case eventUpgrading:
		m.stage, m.outcome = unitUpgrading, ""
		return reloading(), m.policy.ReadyTimeout
	case eventFailed, eventUndone:
		return m.endUpgrade(l), 0
	case eventRefused:
		return m.endRefused(l), 0
	case eventStopping:
		m.stage = unitStopping
		return "STOPPING=1", m.policy.DrainDelay
	}
	return "", 0
}

// endUpgrade: of the first start the exit status tells.
func (m *sdNotifier) endUpgrade(l line) string {
	if m.stage == unitStarting {
		m.stage, m.outcome = unitStopping, l.text+": "+l.why
		return ""
	}
	m.stage, m.outcome = unitServing, fmt.Sprintf("upgrade to generation %d %s: %s", l.Generation, l.event, l.why)
	return "READY=1"
}

// endRefused answers systemd's Type=notify-reload, which waits for both words
// after its signal, and has none for a refusal. Together they say that it was over
// at once (service_notify_message in systemd's src/core/service.c).
func (m *sdNotifier) endRefused(l line) string {
	if m.stage != unitServing {
		return ""
	}
	m.outcome = "upgrade refused: " + l.why
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
func (m *sdNotifier) remember(l line) {
	_, known := m.lines[l.Generation]
	name := fmt.Sprintf("generation %d", shown(l.Generation))
	what := strings.TrimPrefix(l.text, "generation ")
	switch {
	case l.Generation == 0:
	case l.event == eventDrained, l.event == eventFailed, l.event == eventUndone:
		delete(m.lines, l.Generation)
	case l.event == eventServing, l.event == eventUpgraded, m.well(l):
		m.lines[l.Generation] = name + " serves"
	case !known && l.event != eventUpgrading && m.stage != unitStarting:
	case l.why == "":
		m.lines[l.Generation] = name + ": " + what
	default:
		m.lines[l.Generation] = name + ": " + what + ": " + l.why
	}
}

// well: of the instances that serve only trouble is news.
func (m *sdNotifier) well(l line) bool {
	return l.Generation == m.serving && l.Instance != 0 && l.level <= zerolog.InfoLevel && m.stage != unitStopping
}

// tell adds to the message what state grace is in, and how long it may take to
// its next word.
func (m *sdNotifier) tell(message string, within time.Duration) {
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

func (m *sdNotifier) describe() string {
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
func (m *sdNotifier) follow(pid int) { m.send(fmt.Sprintf("MAINPID=%d\nWATCHDOG=1", pid)) }

// send does not block: what finds no room is lost.
func (m *sdNotifier) send(message string) {
	select {
	case m.messages <- message:
	default:
	}
}

// speak sends what there is to say. That it cannot is told once.
func (m *sdNotifier) speak(post func(machine.Event)) {
	defer close(m.said)
	told := false
	for message := range m.messages {
		if err := handoff.Notify(message); err != nil && !told {
			told = true
			post(machine.Noticed{Text: "cannot notify the service manager", Why: err.Error()})
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
