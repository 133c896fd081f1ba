package childproc

import "errors"

// ErrCannotLook is what a look gives that could not see all it had to see, and
// whose "no" therefore means nothing. The next look may be luckier.
var ErrCannotLook = errors.New("cannot look into the app's processes")
