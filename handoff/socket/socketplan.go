package socket

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/gracerun/grace/handoff/internal/tableflip"
)

// PlanRequest is the order to give the sockets to one instance.
type PlanRequest struct {
	// Listeners stay the caller's, and open until the instance was started.
	Listeners []*Listener
	// Command is the app's command line, with {fd} and {fd:NAME}.
	Command []string
	// Generation counts from 1.
	Generation int
	// Parent is the pid that will be the instance's parent: grace's.
	Parent int
}

// SocketPlan is what one instance is started with. Descriptors in it are the listeners' own, not duplicates, and belong to
// them still; those of pipes belong to the plan: call Started when the fork is done or has failed, and Close when
// the instance has gone, or never came.
type SocketPlan struct {
	// Stdin is the instance's descriptor 0; -1 stands for /dev/null.
	Stdin int
	// Files become the descriptors 3, 4, ... of the instance.
	Files []int
	// Env is to be added to an environment without the variables of another supervisor (handoff.CleanEnv).
	Env []string
	// PIDVars are variables whose value has to be the instance's own pid.
	PIDVars []string
	// Command has the numbers in place of {fd}.
	Command []string
	// sockets are the listeners as the instance sees them, in their order.
	sockets []heldSocket
	// Predecessor, of tableflip only, is to be closed when the instance's predecessor has exited, which the instance
	// notices. Close does that too.
	Predecessor *os.File

	ready *os.File // tableflip's, in the instance's file 3
	given []*os.File
}

// Plan works out how one instance gets its sockets. It fails when a dialect or the command cannot be served with
// these listeners, or pipes are needed and there is no descriptor left.
func (d Dialects) Plan(r PlanRequest) (*SocketPlan, error) {
	sockets := d.number(r.Listeners)
	command, err := expand(r.Command, sockets)
	if err != nil {
		return nil, err
	}
	g := &SocketPlan{Stdin: -1, Command: command, sockets: sockets}
	for _, entry := range d {
		if err := entry.tell(g, r, sockets); err != nil {
			return nil, errors.Join(err, g.Close())
		}
	}
	if d.first() == 0 {
		return g, nil
	}
	for _, l := range r.Listeners {
		g.Files = append(g.Files, l.FD())
	}
	return g, nil
}

func (d Dialects) number(listeners []*Listener) []heldSocket {
	sockets := make([]heldSocket, len(listeners))
	for i, l := range listeners {
		sockets[i] = heldSocket{name: l.Name(), network: l.Network(), addr: l.address.Addr, bound: l.Bound(), fd: d.first() + i}
	}
	return sockets
}

// set leaves out variables with nothing in them: a reader may take an empty list for an error.
func (g *SocketPlan) set(name, value string) {
	if value != "" {
		g.Env = append(g.Env, name+"="+value)
	}
}

// TellsReady reports whether a dialect has the instance say by a pipe that it is ready: tableflip.
func (g *SocketPlan) TellsReady() bool { return g.ready != nil }

// AwaitReady returns nil when the instance has said so. It fails when the instance has closed the pipe, by its end
// mostly, or the plan is closed, before that.
func (g *SocketPlan) AwaitReady() error {
	var said [1]byte
	if _, err := g.ready.Read(said[:]); err != nil {
		return fmt.Errorf("cannot read the app's readiness from the pipe of tableflip: %w", err)
	}
	if said[0] != tableflip.Ready {
		return fmt.Errorf("unexpected byte %d on the pipe of tableflip: readiness is %d", said[0], tableflip.Ready)
	}
	return nil
}

// Started closes the instance's ends of the pipes, which the instance has now, or never will.
func (g *SocketPlan) Started() error {
	var errs []error
	for _, f := range g.given {
		errs = append(errs, f.Close())
	}
	g.given = nil
	return errors.Join(errs...)
}

// Close closes what is left of the pipes. A second Close does nothing.
func (g *SocketPlan) Close() error {
	errs := []error{g.Started()}
	for _, f := range []*os.File{g.ready, g.Predecessor} {
		if f == nil {
			continue
		}
		if err := f.Close(); !errors.Is(err, os.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// place is {fd} or {fd:NAME}. With a $ in front it is a shell's variable, and not ours.
const place = `\$?\{fd(:[^{}]*)?\}`

// expand puts the sockets' numbers into a command.
func expand(command []string, sockets []heldSocket) ([]string, error) {
	if !slices.ContainsFunc(command, func(word string) bool { return strings.Contains(word, "{fd") }) {
		return slices.Clone(command), nil // a fork does not wait for the expression
	}
	// Compiled here: apps import this package too, and would pay for a global at their start.
	places := regexp.MustCompile(place)
	expanded := make([]string, len(command))
	var failed error
	for i, word := range command {
		expanded[i] = places.ReplaceAllStringFunc(word, func(match string) string {
			if match[0] == '$' {
				return match
			}
			fd, err := findSocket(strings.TrimSuffix(strings.TrimPrefix(match, "{fd"), "}"), sockets)
			failed = errors.Join(failed, err)
			return strconv.Itoa(fd)
		})
	}
	if failed != nil {
		return nil, fmt.Errorf("cannot build the command line: %w", failed)
	}
	return expanded, nil
}

// findSocket gives the number of the socket called ":name", or of the only one for "".
func findSocket(name string, sockets []heldSocket) (int, error) {
	if name == "" && len(sockets) == 1 {
		return sockets[0].fd, nil
	}
	if name == "" {
		return -1, fmt.Errorf("{fd} needs exactly one --listen, and there are %d: write {fd:NAME} with one of %s", len(sockets), namesOf(sockets))
	}
	found := -1
	for _, s := range sockets {
		if s.name != name[1:] {
			continue
		}
		if found >= 0 {
			return -1, fmt.Errorf("{fd%s} fits several sockets: give them names of their own with --listen NAME=ADDRESS", name)
		}
		found = s.fd
	}
	if found < 0 {
		return -1, fmt.Errorf("{fd%s} names no socket: the names are %s", name, namesOf(sockets))
	}
	return found, nil
}

func namesOf(sockets []heldSocket) string {
	if len(sockets) == 0 {
		return "none"
	}
	return join(sockets, ", ", func(s heldSocket) string { return s.name })
}
