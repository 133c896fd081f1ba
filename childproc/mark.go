package childproc

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"math"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// A mark tells the processes that come from one start, whatever they do: a limit of real-time processor time of more than a
// hundred thousand years. Unlike groups, sessions, parents, names and environments it survives fork, exec, setsid and an
// empty environment, anybody may read it, and it takes no right.
const (
	markBase  = 1 << 62 // microseconds
	markWidth = 20      // bits of the number within one family
)

// newMarks gives the first mark of a family that no other one is likely to have.
func newMarks() uint64 {
	var family [4]byte
	_, _ = rand.Read(family[:]) // never fails (crypto/rand)
	return markBase | uint64(binary.NativeEndian.Uint32(family[:]))<<markWidth
}

// nextMark gives 0, for none, where the limit has a use: grace's own is another grace's mark, or there is none.
func (f *Reaper) nextMark() uint64 {
	var own unix.Rlimit
	err := unix.Getrlimit(unix.RLIMIT_RTTIME, &own)
	if err != nil || own.Cur < markBase || own.Max != math.MaxUint64 {
		return 0
	}
	f.marks++
	return f.marks
}

// underMark forks while grace has the mark itself: a child inherits it before it can do anything.
func underMark(mark uint64, fork func() error) error {
	if mark == 0 {
		return fork()
	}
	var own unix.Rlimit
	if err := unix.Prlimit(0, unix.RLIMIT_RTTIME, &unix.Rlimit{Cur: mark, Max: math.MaxUint64}, &own); err != nil {
		return fork()
	}
	defer func() { _ = unix.Setrlimit(unix.RLIMIT_RTTIME, &own) }() // it was allowed a moment ago
	return fork()
}

// markOf gives 0 for a process that has none, or has ended.
func markOf(pid int) (uint64, error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/limits")
	if err != nil {
		return 0, ignoreGone(err)
	}
	_, limit, _ := bytes.Cut(text, []byte("Max realtime timeout"))
	soft := bytes.Fields(limit)
	if len(soft) == 0 {
		return 0, nil
	}
	mark, err := strconv.ParseUint(string(soft[0]), 10, 64)
	if err != nil || mark < markBase { // "unlimited" is no number
		return 0, nil
	}
	return mark, nil
}
