package shim

import (
	"strings"
	"syscall"
	"testing"
)

func TestListsThatCannotBeSent(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want error
	}{
		"zero byte": {"a\x00b", syscall.EINVAL},
		"too much":  {strings.Repeat("x", size), syscall.E2BIG},
		"most":      {strings.Repeat("x", 7<<20), nil},
	} {
		l := NewList(0)
		l.String(c.text)
		if _, err := l.Encode(); err != c.want {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func TestReports(t *testing.T) {
	text := appendWords(nil, 3, uint64(syscall.ENOENT))
	if call, errno, ok := ParseReport(text); call != 3 || errno != syscall.ENOENT || !ok {
		t.Errorf("%d, %v, %v", call, errno, ok)
	}
	for _, wrong := range [][]byte{nil, text[:15], append(text, 0)} {
		if _, _, ok := ParseReport(wrong); ok {
			t.Errorf("%q is a report", wrong)
		}
	}
}

func TestStepOfACallThatIsNotThere(t *testing.T) {
	l := NewList(0)
	l.Call("umask", 0)
	if l.Step(0) != "umask" || l.Step(1) != "shim" {
		t.Errorf("%q, %q", l.Step(0), l.Step(1))
	}
}

func TestOnlyTheNameMakesAShim(t *testing.T) {
	for text, want := range map[string]bool{Name + "\x00": true, Name: false, "": false, Name + "s": false, "grace\x00" + Name + "\x00": false} {
		if isShim([]byte(text)) != want {
			t.Errorf("%q: not %v", text, want)
		}
	}
}

func TestDigits(t *testing.T) {
	for number, want := range map[uint64]string{0: "0", 9: "9", 10: "10", 4194304: "4194304", 1<<64 - 1: "18446744073709551615"} {
		text := make([]byte, mostDigits+1)
		writeDigits(text, number)
		if got := strings.TrimRight(string(text), "\x00"); got != want {
			t.Errorf("%d is written as %q", number, got)
		}
	}
}
