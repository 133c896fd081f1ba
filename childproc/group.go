package childproc

import "errors"

// ErrStopped is what a wait gives that was ended by its stop channel.
var ErrStopped = errors.New("stopped waiting")
