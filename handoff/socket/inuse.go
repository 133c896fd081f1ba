package socket

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/gracerun/grace/handoff/sockdiag"
	"golang.org/x/sys/unix"
)

// InUseError says that other processes have the address. errors.Is finds unix.EADDRINUSE in it.
type InUseError struct {
	Address Address
	// Holders are the processes that have the socket open, by rising pid; a prefork server has several.
	Holders []sockdiag.Holder
	// Unseen says why there are no Holders.
	Unseen string

	inodes map[uint64]int
}

const shownHolders = 3

func (e *InUseError) Error() string {
	text := fmt.Sprintf("cannot bind %s: address already in use", e.Address.Addr)
	if len(e.Holders) == 0 {
		return text + "; cannot see which process has it: " + e.Unseen
	}
	shown := e.Holders[:min(len(e.Holders), shownHolders)]
	names := make([]string, len(shown))
	for i, h := range shown {
		names[i] = h.String()
	}
	text += " by " + strings.Join(names, ", ")
	if more := len(e.Holders) - len(shown); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	if e.Own() {
		text += "; grace itself has it"
	}
	return text
}

// Own tells whether this process is among the Holders.
func (e *InUseError) Own() bool {
	return slices.ContainsFunc(e.Holders, func(h sockdiag.Holder) bool { return h.PID == os.Getpid() })
}

// Inodes are the sockets at the address.
func (e *InUseError) Inodes() []uint64 { return slices.Collect(maps.Keys(e.inodes)) }

// Owner is the user of the sockets at the address.
func (e *InUseError) Owner() int {
	for _, uid := range e.inodes {
		return uid
	}
	return unix.Geteuid()
}

// Unwrap gives the kernel's error.
func (e *InUseError) Unwrap() error { return unix.EADDRINUSE }

// InUse looks for the holders of the sockets, given as inode and uid.
func InUse(a Address, sockets map[uint64]int, err error) error {
	e := &InUseError{Address: a, inodes: sockets}
	if err == nil {
		e.Holders, err = sockdiag.Holders(sockets)
	}
	switch {
	case err != nil:
		e.Unseen = err.Error()
	case len(sockets) == 0:
		e.Unseen = "no listening socket in this network namespace has it"
	case len(e.Holders) == 0:
		e.Unseen = unreadable(sockets)
	}
	return e
}

// hidesProcesses tells whether /proc is mounted with hidepid=; of several mounts the last one counts.
func hidesProcesses() (hides bool) {
	text, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > 4 && fields[4] == "/proc" {
			_, value, found := strings.Cut(fields[len(fields)-1], "hidepid=")
			value, _, _ = strings.Cut(value, ",")
			hides = found && value != "0" && value != "off"
		}
	}
	return hides
}

func unreadable(sockets map[uint64]int) string {
	var owners []string
	for _, uid := range sockets {
		owners = append(owners, sockdiag.UserName(uid))
	}
	slices.Sort(owners)
	if hidesProcesses() {
		return fmt.Sprintf("the socket belongs to %s, and /proc hides the processes of other users from grace (uid %d), as it is mounted with hidepid: "+
			"start grace as the same user or as root, or in the group of the mount's gid=", strings.Join(slices.Compact(owners), " and "), unix.Geteuid())
	}
	return fmt.Sprintf("the socket belongs to %s, whose processes grace (uid %d) may not inspect, or to a process in another container",
		strings.Join(slices.Compact(owners), " and "), unix.Geteuid())
}
