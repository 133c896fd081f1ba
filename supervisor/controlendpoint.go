package supervisor

import (
	"context"
	"errors"
	"time"

	"github.com/gracerun/grace/supervisor/control"
	"github.com/gracerun/grace/supervisor/machine"
)

// openControl makes the control socket. Without a place for one the app is served all
// the same, and grace is left to signals until there is one.
func openControl(o *Options) (*control.Socket, error) {
	o.unnamed = o.Name == ""
	s, err := control.Open(o.Name)
	if taken := (*control.TakenError)(nil); errors.As(err, &taken) {
		return nil, err
	}
	if err != nil {
		o.Log.Warn().Str("why", err.Error()).Msg("no control socket: grace upgrade, status and stop cannot reach this grace process")
		return nil, nil
	}
	o.Name = s.Name
	return s, nil
}

// keepInterval is between two tries to make a control socket where there is no place for one, and between two looks where the
// kernel does not tell that it has gone.
const keepInterval = 5 * time.Second

// controlEndpoint is where the backend is asked. It belongs to the one who opened it, but for the
// time between attend and rest.
type controlEndpoint struct {
	backend *controlBackend
	socket  *control.Socket   // nil without a place for one
	servers []*control.Server // on this socket and those before it, whose clients wait for answers
	told    string            // why the socket cannot be made anew
	cancel  context.CancelFunc
	ended   chan struct{} // closed after cancel
}

func openControlEndpoint(s *control.Socket, d *controlBackend) (*controlEndpoint, error) {
	c := &controlEndpoint{backend: d}
	if s != nil {
		if err := c.serve(s); err != nil {
			return nil, err
		}
	}
	c.attend(keepInterval)
	return c, nil
}

func (c *controlEndpoint) serve(s *control.Socket) error {
	listener, err := s.Listener()
	if err != nil {
		return err
	}
	named := *c.backend
	named.name = s.Name
	c.socket, c.servers = s, append(c.servers, control.Serve(listener, &named))
	return nil
}

// attend sees that the socket can be found, until rest: its directory goes at a logout, or with a cleaner of /tmp.
func (c *controlEndpoint) attend(interval time.Duration) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	c.cancel, c.ended = cancel, ended
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			if c.awaitGone(ctx, interval) {
				c.look()
			}
		}
	}()
}

// awaitGone returns false if ctx ends before.
func (c *controlEndpoint) awaitGone(ctx context.Context, interval time.Duration) bool {
	if c.socket != nil && c.told == "" && c.socket.AwaitGone(ctx) == nil {
		return true
	}
	select {
	case <-time.After(interval):
		return true
	case <-ctx.Done():
		return false
	}
}

func (c *controlEndpoint) look() {
	if c.socket != nil && c.socket.InPlace() {
		return
	}
	text, err := "the control socket was created again", c.renew()
	why := ""
	if err != nil {
		text, why = "no control socket: grace upgrade, status and stop cannot reach this grace process", err.Error()
	}
	if err == nil || why != c.told {
		c.backend.loop.post(machine.Noticed{Text: text, Why: why})
	}
	c.told = why
}

// renew leaves the old server to those who wait for its answers.
func (c *controlEndpoint) renew() (err error) {
	var fresh *control.Socket
	if c.socket == nil {
		fresh, err = control.Open(c.backend.name)
	} else {
		fresh, err = c.socket.Renew()
	}
	if err != nil {
		return err
	}
	before := c.socket
	if err := c.serve(fresh); err != nil {
		return errors.Join(err, fresh.Leave())
	}
	if before != nil {
		return before.Leave()
	}
	return nil
}

// rest ends what attend has begun. It may be called again.
func (c *controlEndpoint) rest() {
	if c != nil {
		c.cancel()
		<-c.ended
	}
}

// resume attends again after a rest.
func (c *controlEndpoint) resume() {
	if c == nil {
		return
	}
	select {
	case <-c.ended:
		c.attend(keepInterval)
	default:
	}
}

// current is the socket; it may be asked for at rest. It is nil without one.
func (c *controlEndpoint) current() *control.Socket {
	if c == nil {
		return nil
	}
	return c.socket
}

// leave ends the servers; who was not answered sees the connection end. The socket stays.
func (c *controlEndpoint) leave() error {
	if c == nil {
		return nil
	}
	c.rest()
	var errs []error
	for _, server := range c.servers {
		errs = append(errs, server.Close())
	}
	return errors.Join(errs...)
}

// close lets the last results go out.
func (c *controlEndpoint) close() error {
	if c == nil {
		return nil
	}
	err := c.leave()
	if c.socket != nil {
		err = errors.Join(err, c.socket.Close())
	}
	return err
}
