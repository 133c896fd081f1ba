package host

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func newStateMemory(t *testing.T) *StateMemory {
	t.Helper()
	m, err := NewStateMemory()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func writeState(t *testing.T, m *StateMemory, number uint64, text string) {
	t.Helper()
	if err := m.Write(number, []byte(text)); err != nil {
		t.Fatal(err)
	}
}

// Whatever byte of the newest state is wrong, as after a write that was cut, the one before it is read.
func TestNewestWholeStateIsRead(t *testing.T) {
	m := newStateMemory(t)
	if text := readStateHalves(m.fd); text != nil {
		t.Errorf("an empty one has %q", text)
	}
	texts := []string{"first", strings.Repeat("second ", 1000), "3", ""}
	for i, text := range texts {
		at := m.states.turn * stateHalf
		writeState(t, m, uint64(i+1), text)
		if got := string(readStateHalves(m.fd)); got != text {
			t.Fatalf("after %q it has %q", text, got)
		}
		if i == 0 {
			continue
		}
		for b := range stateHeaderSize + int64(min(len(text), 100)) {
			flipBits(t, m.fd, at+b)
			if got := string(readStateHalves(m.fd)); got != texts[i-1] && b/8 != 1 { // another number makes it another state
				t.Fatalf("with byte %d of %.10q wrong it has %.10q", b, text, got)
			}
			flipBits(t, m.fd, at+b)
		}
	}
}

func flipBits(t *testing.T, fd int, at int64) {
	t.Helper()
	var b [1]byte
	if _, err := unix.Pread(fd, b[:], at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x80
	if _, err := unix.Pwrite(fd, b[:], at); err != nil {
		t.Fatal(err)
	}
}

// The newest one counts, of several descriptors too, and nothing else that was kept is taken.
func TestStatesThatWereKept(t *testing.T) {
	old, newer := newStateMemory(t), newStateMemory(t)
	writeState(t, old, 1, "old")
	writeState(t, newer, 2, "newer")
	kept := Kept{storedPrefix + "socket-1": 1000, memoryName(1): dup(t, old.fd), memoryName(2): dup(t, newer.fd), memoryName(3): dup(t, newStateMemory(t).fd)}
	texts := map[string]bool{}
	for _, text := range kept.TakeStates() {
		texts[string(text)] = true
	}
	if len(texts) != 2 || !texts["old"] || !texts["newer"] {
		t.Errorf("it has %v", texts)
	}
	if len(kept) != 1 {
		t.Errorf("%v is left", kept)
	}
}

func dup(t *testing.T, fd int) int {
	t.Helper()
	duplicate, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return duplicate
}
