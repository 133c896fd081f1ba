//go:build !linux

package childproc

import "syscall"

// Stopped sees nothing.
func Stopped([]int) (int, syscall.Signal) { return 0, 0 }

// Living sees nobody.
func Living(int) bool { return false }

// Called knows no name.
func Called(int) string { return "?" }
