//go:build !linux

package childproc

import "fmt"

// Lookout tells whether processes wait for connections; here it cannot.
type Lookout struct{}

// NewLookout makes a Lookout that sees nothing.
func NewLookout([]uint64) *Lookout { return &Lookout{} }

// Look always fails with ErrCannotLook.
func (*Lookout) Look([]int) ([]bool, error) {
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
