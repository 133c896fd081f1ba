package childproc

import "errors"

// ErrCannotLook is what a look gives that could not see all it had to.
var ErrCannotLook = errors.New("cannot look into the app's processes")
