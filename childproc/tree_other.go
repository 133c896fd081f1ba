//go:build !linux

package childproc

import "errors"

// Tree always fails.
func Tree(int) ([]int, error) {
	return nil, errors.New("cannot list the descendants of a process: only on Linux")
}

// Descends always fails.
func Descends(int, int) (bool, error) {
	return false, errors.New("cannot tell a process's ancestors: only on Linux")
}

// Everybody always fails.
func Everybody() ([]int, error) { return nil, errOnlyLinux }
