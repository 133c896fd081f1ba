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

// Event is one message of a stream. Clients pass it to the page if it has Data or a Name; an event with neither only sets
// the ID and Retry.
type Event struct {
	// ID is what the client sends in Last-Event-ID when it reconnects. If it is empty, the client keeps the ID of the event
	// before. It has to fit into a header: no control characters, no space at either end, valid UTF-8.
	ID string
	// Name is the type of event that the page listens for, in one line; an empty one means "message".
	Name string
	// Data is text of any number of lines. CR, LF and CRLF each end a line, and the client sees LF. Invalid UTF-8
	// arrives as U+FFFD.
	Data string
	// Retry is how long the client waits before it reconnects, for this stream's end and later ones. It is rounded up to
	// milliseconds. 0 leaves the client's time as it is.
	Retry time.Duration
}

// frame returns the bytes of the event, none for the zero Event.
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

// appendField always writes a space, because a reader removes one: otherwise it could remove a space of the value.
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
		return fmt.Errorf("cannot send the event: its Retry is negative: %v", e.Retry)
	}
	if err := checkID(e.ID); err != nil {
		return fmt.Errorf("cannot send the event: its ID %q is invalid: %w", e.ID, err)
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

// isControl is true for the characters that a header cannot have, which are only those of ASCII (https://www.rfc-editor.org/rfc/rfc9110#section-5.5).
func isControl(r rune) bool { return r <= unicode.MaxASCII && unicode.IsControl(r) }
