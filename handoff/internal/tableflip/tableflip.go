// Package tableflip has what an app built on github.com/cloudflare/tableflip and its parent agree on.
package tableflip

import "github.com/gracerun/grace/handoff/internal/inherited"

const (
	// Variable is set in an app that has a parent.
	Variable = "TABLEFLIP_HAS_PARENT_7DIU3"
	// Ready is the byte that the app writes to descriptor 3 when it is ready.
	Ready = 42
	// FirstFile is the number of the app's first socket, behind the two pipes.
	FirstFile = inherited.FirstFile + 2
)
