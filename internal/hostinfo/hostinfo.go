// Package hostinfo says on what machine something was measured.
package hostinfo

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Kernel leaves out how who has built it calls it; it is "Linux " where the kernel does not tell.
func Kernel() string {
	var name unix.Utsname
	_ = unix.Uname(&name) // an unknown kernel is shown as none
	parts := strings.SplitN(unix.ByteSliceToString(name.Release[:]), ".", 3)
	return "Linux " + strings.Join(parts[:min(2, len(parts))], ".")
}

// LoadAverage is that of the last minute.
func LoadAverage() string {
	text, _ := os.ReadFile("/proc/loadavg")
	one, _, _ := strings.Cut(string(text), " ")
	return one
}
