package sse

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Event is one message of a stream. Clients hand it to the page if it has Data or a Name; one with neither only sets
// the ID and Retry.
type Event struct {
	// ID is what the client says in Last-Event-ID when it comes back. With none the client keeps the one before.
	// It has to survive the way into a header: no control characters, no space at either end, valid UTF-8.
	ID string
	// Name is the type that the page listens for, one line; "message" if it is empty.
	Name string
	// Data is text of any number of lines. Each of CR, LF and CRLF ends one, and the client sees LF. What is not UTF-8
	// arrives as U+FFFD.
	Data string
	// Retry is how long the client waits from now on before it comes back when its stream has ended, in steps of a
	// millisecond. 0 says nothing.
	Retry time.Duration
}

// frame gives the bytes of the event, none for the zero Event.
func (e Event) frame() ([]byte, error) {
	if err := e.check(); err != nil {
		return nil, err
	}
	var b []byte
	if e.Name != "" {
		b = appendField(b, "event", e.Name)
	}
	if e.ID != "" {
		b = appendField(b, "id", e.ID)
	}
	if e.Retry > 0 {
		b = appendField(b, "retry", milliseconds(e.Retry))
	}
	if e.Name != "" || e.Data != "" {
		b = appendData(b, e.Data)
	}
	if len(b) == 0 {
		return nil, nil
	}
	return append(b, '\n'), nil
}

var lineEnds = strings.NewReplacer("\r\n", "\n", "\r", "\n")

func appendData(b []byte, data string) []byte {
	for line := range strings.SplitSeq(lineEnds.Replace(data), "\n") {
		b = appendField(b, "data", line)
	}
	return b
}

// appendField writes a space always: a reader takes one away, which may be the value's own otherwise.
func appendField(b []byte, name, value string) []byte {
	b = append(b, name...)
	b = append(b, ": "...)
	b = append(b, value...)
	return append(b, '\n')
}

func milliseconds(d time.Duration) string {
	return strconv.FormatInt(int64((d+time.Millisecond-1)/time.Millisecond), 10)
}

func (e Event) check() error {
	switch {
	case strings.ContainsAny(e.Name, "\r\n"):
		return fmt.Errorf("cannot send the event: its name %q has more than one line", e.Name)
	case e.Retry < 0:
		return fmt.Errorf("cannot send the event: it wants clients to wait for %v", e.Retry)
	}
	if err := checkID(e.ID); err != nil {
		return fmt.Errorf("cannot send the event: its ID %q would not come back as it is: %w", e.ID, err)
	}
	return nil
}

func checkID(id string) error {
	switch {
	case strings.ContainsFunc(id, isControl):
		return errors.New("it has a control character")
	case strings.TrimSpace(id) != id:
		return errors.New("it begins or ends with a space")
	case !utf8.ValidString(id):
		return errors.New("it is not UTF-8")
	}
	return nil
}

// isControl is for what a header cannot have, which are ASCII's alone (https://www.rfc-editor.org/rfc/rfc9110#section-5.5).
func isControl(r rune) bool { return r <= unicode.MaxASCII && unicode.IsControl(r) }
