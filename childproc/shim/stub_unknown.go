//go:build !amd64 && !arm64

package shim

// Stub is nil: there is no stub for this architecture.
func Stub() []byte { return nil }
