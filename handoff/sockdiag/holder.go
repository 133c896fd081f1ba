package sockdiag

import (
	"fmt"
	"os/user"
	"strconv"
)

// Holder is a process that has a socket open.
type Holder struct {
	PID, UID int
	// User is the name of UID, or its number where it has none.
	User string
	// Command is the process's command line.
	Command string
}

func (h Holder) String() string {
	return fmt.Sprintf("pid %d of %s: %s", h.PID, h.User, h.Command)
}

// UserName is for messages: uid may be unknown, and below zero.
func UserName(uid int) string {
	if uid < 0 {
		return "another user"
	}
	u, err := user.LookupId(strconv.Itoa(uid))
	if err != nil {
		return "uid " + strconv.Itoa(uid)
	}
	return u.Username
}
