package handoff

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// notifyTimeout bounds the wait for room in the supervisor's queue, which has room for 10 messages by default on Linux.
const notifyTimeout = 5 * time.Second

// Ready tells the supervisor that this process serves now. The supervisor then stops the generation before it, so
// call Ready only when requests are answered. Without NOTIFY_SOCKET it does
// nothing and returns nil, like Status, Stopping, InFlight and Notify. If Listen found the sockets of a tableflip parent, the
// first Ready reports to that parent too.
func Ready() error {
	var parent error
	if i := taken.Load(); i != nil {
		parent = i.sayReady()
	}
	return errors.Join(parent, Notify("READY=1"))
}

// Status tells the supervisor in one line what the process does, as text for people. Line breaks become spaces.
func Status(text string) error {
	return Notify("STATUS=" + strings.NewReplacer("\r\n", " ", "\n", " ").Replace(text))
}

// Stopping tells the supervisor that the process has begun to end.
func Stopping() error { return Notify("STOPPING=1") }

// InFlight tells grace how many requests the process is still working on. Other supervisors ignore it.
func InFlight(n int) error { return Notify("X_GRACE_INFLIGHT=" + strconv.Itoa(n)) }

// KillAfter is the least time that grace allows between its stop signal and KILL, for an app that wants to give up by
// itself before that. The second result is false if the time is unknown: grace sets it in GRACE_KILL_AFTER, other supervisors do not.
//
// The time starts at the stop signal. The service manager or container engine above grace may allow less.
func KillAfter() (time.Duration, bool) {
	d, err := time.ParseDuration(os.Getenv("GRACE_KILL_AFTER"))
	if err != nil || d <= 0 {
		return 0, false
	}
	return d, true
}

// Notify sends any message of sd_notify(3) to the supervisor, such as EXTEND_TIMEOUT_USEC=5000000: lines of NAME=value,
// separated by line breaks. It waits up to 5 seconds for room in the supervisor's queue.
func Notify(message string) error {
	addr := os.Getenv("NOTIFY_SOCKET")
	if addr == "" {
		return nil
	}
	if err := send(addr, message, notifyTimeout); err != nil {
		return fmt.Errorf("cannot tell the supervisor %s: %w", message, err)
	}
	return nil
}

// send sends one message of sd_notify(3). The kernel adds the sender's credentials if the receiver requests them.
func send(addr, message string, patience time.Duration) error {
	if addr[0] != '/' && addr[0] != '@' {
		return fmt.Errorf("NOTIFY_SOCKET=%s is neither an absolute path nor @name", addr)
	}
	conn, err := net.Dial("unixgram", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	_, err = conn.Write([]byte(message))
	return err
}
