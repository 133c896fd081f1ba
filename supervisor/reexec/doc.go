// Package succession replaces the program of a running grace by a newer one. What the
// old one leaves to the new one is an [Snapshot]: a document and the descriptors that it
// is about.
//
// There are two ways. A successor in another process is started by tableflip, and
// takes over once it has said that it can; until then the old one goes on. A
// successor in the same process, by execve, keeps the pid and the children; whether
// it can take over is tried before, in a process of its own.
//
// Whoever takes over calls [Find] before anything else, and then [Predecessor.Accept]
// or [Predecessor.Refuse]. The package knows nothing of what the document says.
package reexec

import "time"

// Patience is how long a successor has until it can take over.
const Patience = 10 * time.Second

// Snapshot is what is left to a successor. The descriptors stay the caller's; the
// successor gets duplicates.
type Snapshot struct {
	Document []byte
	Files    []int
}
