package childproc

import (
	"bytes"
	"errors"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Message is what one sd_notify(3) message says. What it does not say, and what
// it says in a way that makes no sense, is zero.
type Message struct {
	PID      int // the sender's
	Ready    bool
	Stopping bool
	Watchdog bool    // a sign of life
	Status   *string // one line, safe to print
	MainPID  int
	Extend   time.Duration // of the time to start or stop in, from now on
	InFlight *int
}

// parseMessage reads lines of KEY=VALUE. The last of several values counts;
// unknown keys are passed over.
func parseMessage(text []byte) (Message, error) {
	text = bytes.TrimSuffix(text, []byte{0}) // some send C's terminator too
	if bytes.IndexByte(text, 0) >= 0 {
		return Message{}, errors.New("cannot understand a notification: it contains a NUL byte")
	}
	if bytes.IndexByte(text, '=') < 0 {
		return Message{}, errors.New("cannot understand a notification: it has no KEY=VALUE")
	}
	var m Message
	for line := range strings.SplitSeq(string(text), "\n") {
		if key, value, ok := strings.Cut(line, "="); ok {
			m.set(key, value)
		}
	}
	return m, nil
}

func (m *Message) set(key, value string) {
	switch key {
	case "READY":
		m.Ready = value == "1"
	case "STOPPING":
		m.Stopping = value == "1"
	case "WATCHDOG":
		m.Watchdog = value == "1"
	case "STATUS":
		status := printable(value)
		m.Status = &status
	case "MAINPID":
		m.MainPID = 0
		if pid := number(value); pid != nil {
			m.MainPID = *pid
		}
	case "EXTEND_TIMEOUT_USEC":
		m.Extend = microseconds(value)
	case "X_GRACE_INFLIGHT":
		m.InFlight = number(value)
	}
}

func number(value string) *int {
	n, err := strconv.ParseUint(value, 10, 31)
	if err != nil {
		return nil
	}
	i := int(n)
	return &i
}

func microseconds(value string) time.Duration {
	n, err := strconv.ParseUint(value, 10, 64)
	if err != nil {
		return 0
	}
	return time.Duration(min(n, math.MaxInt64/uint64(time.Microsecond))) * time.Microsecond
}

// printable keeps an app from writing control sequences to logs and terminals.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, s)
}
