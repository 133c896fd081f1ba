//go:build !linux

package childproc

import "errors"

// Group always fails.
func Group(int) ([]int, error) {
	return nil, errors.New("cannot list a process group: only on Linux")
}
