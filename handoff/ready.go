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

// notifyPatience bounds the wait for room in the supervisor's queue, which is 10 messages long on an untouched Linux.
const notifyPatience = 5 * time.Second

// Ready tells the supervisor that this process serves now. The generation before it is told to drain on its word, so
// call it only once requests are answered. Without a supervisor that asks for notifications (NOTIFY_SOCKET) it does
// nothing and returns nil, like Status, Stopping, InFlight and Notify. Where Listen found the sockets of a tableflip parent, the
// first Ready tells that too.
func Ready() error {
	var parent error
	if i := taken.Load(); i != nil {
		parent = i.sayReady()
	}
	return errors.Join(parent, Notify("READY=1"))
}

// Status tells the supervisor in one line what the process does, for people to read. Line breaks become spaces.
func Status(text string) error {
	return Notify("STATUS=" + strings.NewReplacer("\r\n", " ", "\n", " ").Replace(text))
}

// Stopping tells the supervisor that the process has begun to end.
func Stopping() error { return Notify("STOPPING=1") }

// InFlight tells grace how many requests the process is still working on. Other supervisors ignore it.
func InFlight(n int) error { return Notify("X_GRACE_INFLIGHT=" + strconv.Itoa(n)) }

// KillAfter is what grace allows at least between its stop signal and KILL, for an app that is to give up by
// itself before that. It is false where nobody says so: grace tells it in GRACE_KILL_AFTER, other supervisors do not.
//
// The time runs from the stop signal on. Whoever is above grace, a service manager or a container's, may allow less.
func KillAfter() (time.Duration, bool) {
	d, err := time.ParseDuration(os.Getenv("GRACE_KILL_AFTER"))
	if err != nil || d <= 0 {
		return 0, false
	}
	return d, true
}

// Notify sends the supervisor any message of sd_notify(3), such as EXTEND_TIMEOUT_USEC=5000000: lines of NAME=value,
// joined by line breaks. It waits up to 5 seconds for room in the supervisor's queue.
func Notify(message string) error {
	addr := os.Getenv("NOTIFY_SOCKET")
	if addr == "" {
		return nil
	}
	if err := send(addr, message, notifyPatience); err != nil {
		return fmt.Errorf("cannot tell the supervisor %s: %w", message, err)
	}
	return nil
}

// send is one message of sd_notify(3). The kernel adds the sender's credentials for a receiver that asks for them.
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
