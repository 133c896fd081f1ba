//go:build !linux

package childproc

import "fmt"

// WaitDetector tells whether processes wait for connections; here it cannot.
type WaitDetector struct{}

// NewWaitDetector makes a Lookout that sees nothing.
func NewWaitDetector([]uint64) *WaitDetector { return &WaitDetector{} }

// Look always fails with ErrCannotLook.
func (*WaitDetector) Look([]int) ([]bool, error) {
	return nil, fmt.Errorf("%w: only on Linux", ErrCannotLook)
}

// Owner always fails with ErrCannotLook.
func Owner(uint64, []int) (int, error) {
	return 0, fmt.Errorf("%w: only on Linux", ErrCannotLook)
}

// Unowned always fails with ErrCannotLook.
func Unowned([]uint64, func() ([]int, error)) ([]uint64, error) {
	return nil, fmt.Errorf("%w: only on Linux", ErrCannotLook)
}

// Registered always fails with ErrCannotLook.
func Registered(uint64, int) (bool, error) {
	return false, fmt.Errorf("%w: only on Linux", ErrCannotLook)
}
