package supervisor

import (
	"errors"

	"github.com/gracerun/grace/supervisor/control"
)

// openControl makes the control socket. Without a place for one the app is served all
// the same, and grace is left to signals.
func openControl(o *Options) (*control.Socket, error) {
	s, err := control.Open(o.Name)
	if taken := (*control.TakenError)(nil); errors.As(err, &taken) {
		return nil, err
	}
	if err != nil {
		o.Log.Warn().Str("why", err.Error()).Msg("no control socket: grace upgrade, status and stop cannot reach this grace")
		return nil, nil
	}
	o.Name = s.Name
	return s, nil
}

// counter is where the desk is asked; nil without a control socket.
type counter struct {
	socket *control.Socket
	server *control.Server
}

func openCounter(s *control.Socket, d *desk) (*counter, error) {
	if s == nil {
		return nil, nil
	}
	listener, err := s.Listener()
	if err != nil {
		return nil, err
	}
	return &counter{s, control.Serve(listener, d)}, nil
}

// close lets the last results go out.
func (c *counter) close() error {
	if c == nil {
		return nil
	}
	return errors.Join(c.server.Close(), c.socket.Close())
}
