package load

import (
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"
)

// Failure is one way in which an exchange can go wrong.
type Failure string

const (
	Refused    Failure = "refused"        // nobody listens, or a full queue turned the connection away
	Reset      Failure = "reset"          // the connection was reset
	Lost       Failure = "lost"           // the request was taken and the connection closed without a byte of response, or an event is missing
	IdleClosed Failure = "idle closed"    // a keep-alive connection was closed before the server read the request
	BadStatus  Failure = "bad status"     // a status other than 2xx
	Short      Failure = "cut short"      // the response ended early
	Wrong      Failure = "wrong response" // not what was asked for: echo, checksum or syntax
	Timeout    Failure = "timeout"        // no end within Config.Timeout
	Other      Failure = "other"          // anything else, such as the client's own lack of ports or descriptors
)

// Failures returns every kind of failure, in the order in which they are shown.
func Failures() []Failure {
	return []Failure{Refused, Reset, Lost, IdleClosed, BadStatus, Short, Wrong, Timeout, Other}
}

// Failed is one exchange that went wrong.
type Failed struct {
	Kind    Kind
	Failure Failure
	At      time.Time
	Err     error
	On      Connection // zero where none could be opened
}

// Connection is a client's own end of one.
type Connection struct {
	Client string // its address; of a unix socket, which has none, its inode
	Opened time.Time
}

// broken is an error of a connection that was open.
type broken struct {
	error
	on Connection
}

func (b broken) Unwrap() error { return b.error }

func connectionOf(err error) Connection {
	var b broken
	errors.As(err, &b)
	return b.on
}

func (f Failed) String() string {
	return fmt.Sprintf("%s %s %s: %v", f.At.Format("15:04:05.000"), f.Kind, f.Failure, f.Err)
}

// failed is an error that says which failure it is.
type failed struct {
	failure Failure
	err     error
}

func (f failed) Error() string { return f.err.Error() }
func (f failed) Unwrap() error { return f.err }

func fail(failure Failure, format string, args ...any) error {
	return failed{failure, fmt.Errorf(format, args...)}
}

// classify says which failure an error is, where nothing closer to it already did.
func classify(err error) Failure {
	var known failed
	var timeout net.Error
	switch {
	case errors.As(err, &known):
		return known.failure
	case errors.As(err, &timeout) && timeout.Timeout():
		return Timeout
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return Reset
	case errors.Is(err, syscall.ECONNREFUSED):
		return Refused
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return Short
	}
	return Other
}

// dialFailure classifies an error of connecting: a missing unix socket, or a full queue of one (EAGAIN, see unix(7)), turns a
// client away just as a refusal does.
func dialFailure(err error) error {
	if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.EAGAIN) {
		return failed{Refused, err}
	}
	return err
}
