package control

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/gracerun/grace/supervisor/dirwatch"
)

// AwaitGone blocks until the socket is not in place any more. The error is that of ctx, or why the kernel cannot be asked.
func (s *Socket) AwaitGone(ctx context.Context) error {
	place, err := dirwatch.Open(filepath.Dir(s.Path))
	if err != nil && !s.InPlace() {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot watch the control socket: %w", err)
	}
	defer place.Close()
	for s.InPlace() {
		if err := place.Wait(ctx); err != nil {
			return err
		}
	}
	return nil
}
