package control

import (
	"context"
	"errors"
	"net/http"
	"time"
)

// Shutdown has a server take no further request, gives the answers that are being written
// until the limit to go out, and ends all connections. What its Serve returned comes by
// ended; it is an error if the server had ended before.
func Shutdown(s *http.Server, ended <-chan error, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if s.Shutdown(ctx) != nil {
		_ = s.Close() // what Shutdown has begun
	}
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
