//go:build !linux

package childproc

import "errors"

// OpenExecutable fails.
func OpenExecutable(string) (int, error) {
	return -1, errors.New("cannot keep an executable: only on Linux")
}
