package childproc

import (
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

func TestParseMessage(t *testing.T) {
	for _, c := range []struct {
		text string
		want Message
	}{
		{"READY=1", Message{Ready: true}},
		{"READY=1\n", Message{Ready: true}},
		{"READY=1\x00", Message{Ready: true}},
		{"READY=0", Message{}},
		{"READY=1\nREADY=0", Message{}},
		{"READY=0\nREADY=1", Message{Ready: true}},
		{" READY=1", Message{}},
		{"READY=1\r", Message{}},
		{"STOPPING=1\nRELOADING=1", Message{Stopping: true}},
		{"WATCHDOG=1", Message{Watchdog: true}},
		{"WATCHDOG=trigger", Message{}},
		{"EXTEND_TIMEOUT_USEC=7", Message{Extend: 7 * time.Microsecond}},
		{"EXTEND_TIMEOUT_USEC=18446744073709551615", Message{Extend: 9223372036854775 * time.Microsecond}},
		{"EXTEND_TIMEOUT_USEC=-7", Message{}},
		{"STATUS=a=b", Message{Status: new("a=b")}},
		{"STATUS=", Message{Status: new("")}},
		{"STATUS=\x1b[31mred\tё\u202e\u00a0\x80", Message{Status: new(" [31mred ё  \ufffd")}},
		{"MAINPID=42", Message{MainPID: 42}},
		{"MAINPID=42\nMAINPID=x", Message{}},
		{"MAINPID=4294967297", Message{}},
		{"X_GRACE_INFLIGHT=0", Message{InFlight: new(0)}},
		{"X_GRACE_INFLIGHT=-1", Message{}},
		{"ERRNO=2", Message{}},
		{"BARRIER=1", Message{}},
		{"nothing\nREADY=1", Message{Ready: true}},
	} {
		got, err := parseMessage([]byte(c.text))
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%q: %+v, %v", c.text, got, err)
		}
	}
}

func TestParseMessageRefuses(t *testing.T) {
	for _, text := range []string{"", "\n", "READY", "\x00", "READY=1\x00READY=1", "READY=1\x00\x00"} {
		if m, err := parseMessage([]byte(text)); err == nil {
			t.Errorf("%q: %+v", text, m)
		}
	}
}

func FuzzParseMessage(f *testing.F) {
	f.Add([]byte("READY=1\nSTATUS=\xff\x1b\nMAINPID=1\nX_GRACE_INFLIGHT=9\nEXTEND_TIMEOUT_USEC=99999999999999999999\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := parseMessage(text)
		if m.MainPID < 0 || m.Extend < 0 || m.InFlight != nil && *m.InFlight < 0 {
			t.Errorf("below zero: %+v", m)
		}
		if m.Status != nil && (!utf8.ValidString(*m.Status) || strings.ContainsFunc(*m.Status, unprintable)) {
			t.Errorf("unprintable: %q", *m.Status)
		}
		if err != nil {
			return
		}
		if more, err := parseMessage(append(text, "\nREADY=1"...)); err == nil && !more.Ready {
			t.Error("the last line does not count")
		}
	})
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) }
