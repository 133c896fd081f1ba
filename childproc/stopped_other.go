//go:build !linux

package childproc

import "syscall"

// Stopped sees nothing.
func Stopped([]int) (int, syscall.Signal) { return 0, 0 }

// Called knows no name.
func Called(int) string { return "?" }
