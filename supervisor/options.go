package supervisor

import (
	"errors"
	"fmt"
	"slices"

	"github.com/gracerun/grace/handoff/socket"
	"github.com/gracerun/grace/supervisor/control"
	"github.com/gracerun/grace/supervisor/host"
	"github.com/rs/zerolog"
)

// Options is what one supervisor is told. Run reads it and changes nothing.
type Options struct {
	host.Options
	PIDFile string
	Adopt   AdoptMode
	// Invocation is grace's own command line, and InvokedIn the directory: who is told that grace was killed is told them.
	Invocation []string
	InvokedIn  string
	Signals    SignalMap // what the app gets in place of some that grace receives
	FileWatch  FileWatch
	Metrics    *socket.Address // where metrics and health are asked for; nil: nowhere
	Name       string          // of the control socket; "" is the working directory's
	unnamed    bool            // nobody has said another name than the working directory's
	Version    string          // of grace
	Log        zerolog.Logger
}

// Validate says what cannot work before anything is touched.
func (o Options) Validate() error {
	return errors.Join(o.Options.Validate(), o.validateName(), o.validateMetrics(), o.validateAdopt(), o.Signals.validate(), o.validateFileWatch())
}

func (o Options) validateName() error {
	if o.Name == "" {
		return nil
	}
	return control.CheckName(o.Name)
}

// validateMetrics: what is asked by HTTP has to be a stream.
func (o Options) validateMetrics() error {
	if o.Metrics == nil || !o.Metrics.Steer && slices.Contains([]string{"tcp", "tcp4", "tcp6", "unix"}, o.Metrics.Network) {
		return nil
	}
	return fmt.Errorf("--metrics %s: HTTP needs a TCP or unix stream address (write HOST:PORT or unix:///PATH)", o.Metrics.Written)
}

func (o Options) validateAdopt() error {
	if slices.Contains([]AdoptMode{"", AdoptAuto, AdoptNever, AdoptRequire}, o.Adopt) {
		return nil
	}
	return fmt.Errorf("--adopt %q: use auto, never or require", o.Adopt)
}
