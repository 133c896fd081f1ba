package childproc

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"math"
	"strconv"

	"golang.org/x/sys/unix"
)

// A tag tells the processes that come from one start, whatever they do: a limit of real-time processor time of more than a
// hundred thousand years. Unlike groups, sessions, parents, names and environments it survives fork, exec, setsid and an
// empty environment, anybody may read it, and it takes no right.
const (
	tagBase  = 1 << 62 // microseconds
	tagWidth = 20      // bits of the number within one Reaper
)

// newTags gives the number before the first tag of a Reaper, which no other one is likely to have.
func newTags() uint64 {
	var reaper [4]byte
	_, _ = rand.Read(reaper[:]) // never fails (crypto/rand)
	return tagBase | uint64(binary.NativeEndian.Uint32(reaper[:]))<<tagWidth
}

// nextTag gives 0, for no tag, where RLIMIT_RTTIME is in use: it limits grace, or is the tag of a grace process around it.
func (r *Reaper) nextTag() uint64 {
	var own unix.Rlimit
	err := unix.Getrlimit(unix.RLIMIT_RTTIME, &own)
	if err != nil || own.Cur < tagBase || own.Max != math.MaxUint64 {
		return 0
	}
	r.lastTag++
	return r.lastTag
}

// underTag forks while grace has the tag itself: a child inherits it before it can do anything.
func underTag(tag uint64, fork func() error) error {
	if tag == 0 {
		return fork()
	}
	var own unix.Rlimit
	if err := unix.Prlimit(0, unix.RLIMIT_RTTIME, &unix.Rlimit{Cur: tag, Max: math.MaxUint64}, &own); err != nil {
		return fork()
	}
	defer func() { _ = unix.Setrlimit(unix.RLIMIT_RTTIME, &own) }() // it was allowed a moment ago
	return fork()
}

// tagOf gives 0 for a process that has none, or has ended.
func tagOf(pid int) (uint64, error) {
	text, err := readProc("/proc/" + strconv.Itoa(pid) + "/limits")
	if err != nil {
		return 0, ignoreGone(err)
	}
	_, limit, _ := bytes.Cut(text, []byte("Max realtime timeout"))
	soft := bytes.Fields(limit)
	if len(soft) == 0 {
		return 0, nil
	}
	tag, err := strconv.ParseUint(string(soft[0]), 10, 64)
	if err != nil || tag < tagBase { // "unlimited" is no number
		return 0, nil
	}
	return tag, nil
}
