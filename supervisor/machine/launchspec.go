package machine

import (
	"slices"
	"time"
)

// LaunchSpec is what a generation runs: the command as it was written, and what was
// found under its names.
type LaunchSpec struct {
	Generation int // that it was resolved for, whose executable is kept; 0 after an old grace process that kept none
	Command    []string
	Path       string            // the executable as the app is to see it
	Executable string            // the file behind it
	Dir        string            // the directory behind the one that was written
	File       File              // what Executable was then
	Links      map[string]string // by which Dir could be meant, and where they led, if nobody has named it
}

// RunsLike reports whether another one leads to the same file, in the same directory, with the same arguments.
func (r LaunchSpec) RunsLike(other LaunchSpec) bool {
	return r.Executable == other.Executable && r.File.Same(other.File) && r.Dir == other.Dir && slices.Equal(r.Command, other.Command)
}

// File tells whether a path leads to the same program as before.
type File struct {
	Device, Inode uint64
	Size          int64
	Modified      time.Time
}

// Same does not ask for the build id: PyInstaller, Deno, Bun and Node's single executables put the program behind or into
// a finished runtime, whose build id it keeps.
func (f File) Same(now File) bool {
	return f.Device == now.Device && f.Inode == now.Inode && f.Size == now.Size && f.Modified.Equal(now.Modified)
}
