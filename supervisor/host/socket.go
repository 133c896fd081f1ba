package host

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gracerun/grace/handoff/socket"
	"github.com/gracerun/grace/handoff/steering"
	"github.com/gracerun/grace/supervisor/machine"
)

// socket is one that an instance has to wait on before it is ready.
type awaitedSocket struct {
	inode   uint64
	place   string // of a captured one: address or path
	address string // of a TCP one, as host:port
	name    string
}

// sockets are the held ones and those that the instance has opened by now.
func (v *readinessCheck) sockets() []awaitedSocket {
	var all []awaitedSocket
	for _, l := range v.apps.Listeners {
		s := awaitedSocket{inode: l.Inode(), name: fmt.Sprintf("%s (%s)", l.Name(), l.Bound())}
		if strings.HasPrefix(l.Network(), "tcp") {
			s.address = l.Bound()
		}
		all = append(all, s)
	}
	if v.apps.Steering == nil {
		return all
	}
	for _, s := range v.apps.Steering.Sockets(v.app.member().Generation) {
		if s.Instance == v.app.start.Slot {
			all = append(all, steeredSocket(s))
		}
	}
	return all
}

// promised are sockets of instances before it that were given to it, and that it may have taken without a listen.
func (v *readinessCheck) promised() []uint64 {
	if v.apps.Steering == nil {
		return nil
	}
	return v.apps.Steering.Promised(v.app.member())
}

// accepts tells the steering on which of the promised sockets, which were looked for last, the instance was seen waiting.
func (v *readinessCheck) accepts(promised []uint64, seen []bool) (any bool) {
	for i, inode := range promised {
		if at := len(seen) - len(promised) + i; at < 0 || !seen[at] {
			continue
		}
		any = true
		v.apps.ReportError("cannot steer a socket that the app has taken over", v.apps.Steering.Accept(v.app.member(), inode))
		v.apps.Post(machine.Opened{Instance: v.instance})
		v.apps.noteChange()
	}
	return any
}

func steeredSocket(s steering.SteeredSocket) awaitedSocket {
	steered := awaitedSocket{inode: s.Inode, place: s.At(), name: s.At()}
	if s.Path == "" {
		steered.address = s.At()
	}
	return steered
}

// before are the sockets of the generation that is to be replaced.
func (v *readinessCheck) before() []awaitedSocket {
	var all []awaitedSocket
	for _, s := range v.apps.Steering.Sockets(v.app.start.Predecessor) {
		all = append(all, steeredSocket(s))
	}
	return all
}

func inodes(sockets []awaitedSocket) []uint64 {
	var numbers []uint64
	for _, s := range sockets {
		numbers = append(numbers, s.inode)
	}
	return numbers
}

// unopened are the addresses where those that came before have listened, and the
// instance does not yet. Who listens somewhere, and says itself that it is ready, has no more to open.
func (v *readinessCheck) unopened(opened []awaitedSocket) []string {
	if v.apps.Steering == nil || v.apps.Options.capturesBeside() && v.opensNoMore() || len(opened) > 0 && v.hasSaidSo() {
		return nil
	}
	before := v.predecessor()
	// A server that grace has not started may be about more than the app, but an app that listens nowhere does not replace it.
	if before == machine.Foreign && len(opened) > 0 && v.opensNoMore() {
		return nil
	}
	if before == 0 {
		before = v.app.start.Of // a batch opens what the rest has open
	}
	known := map[string]bool{}
	for _, s := range opened {
		known[s.place] = true
	}
	return slices.DeleteFunc(v.apps.Steering.Places(before), func(place string) bool { return known[place] })
}

// predecessor is known to a captured app only once it has bound an address that others have.
func (v *readinessCheck) predecessor() int {
	if v.app.start.Predecessor == 0 && len(v.apps.Steering.Places(machine.Foreign)) > 0 {
		return machine.Foreign
	}
	return v.app.start.Predecessor
}

// elsewhere is for the report of an instance that listens where those that came
// before did not.
func (v *readinessCheck) elsewhere() string {
	before := v.app.start.Predecessor
	if v.apps.Steering == nil || before == 0 {
		return ""
	}
	known := map[string]bool{}
	for _, place := range v.apps.Steering.Places(before) {
		known[place] = true
	}
	var names []string
	for _, s := range v.sockets() {
		if s.place != "" && !known[s.place] {
			names = append(names, s.name)
		}
	}
	if len(names) == 0 {
		return ""
	}
	return fmt.Sprintf(", but one waits on %s, where generation %d has no socket: only a version that sends READY=1 to NOTIFY_SOCKET can give up an address; let it do so, or listen on both, or restart grace", listing(names), before)
}

// forgetClosed gives up what the instance, or who comes before it, has opened and closed
// again.
func (v *readinessCheck) forgetClosed() {
	delay := v.apps.Options.Readiness.Delay
	if v.apps.Steering == nil || time.Since(v.begun) < delay {
		return
	}
	var opened []uint64
	for _, s := range append(v.sockets(), v.before()...) {
		if v.opened(s) {
			opened = append(opened, s.inode)
		}
	}
	v.closed.forget(opened, delay)
}

// opened reports whether the app has made the socket itself.
func (v *readinessCheck) opened(s awaitedSocket) bool {
	held := func(l *socket.Listener) bool { return l.Bound() == s.place }
	return s.place != "" && !slices.ContainsFunc(v.apps.Held, held)
}

// opensNoMore: what was opened beside the held sockets may have been for once, such as a
// profiler's port, and the new version may be without it.
func (v *readinessCheck) opensNoMore() bool {
	return v.hasSaidSo() || time.Since(v.begun) >= v.apps.Options.Readiness.FirstSocket
}

func unseen(sockets []awaitedSocket, seen []bool) []string {
	var names []string
	for i, s := range sockets {
		if i >= len(seen) || !seen[i] {
			names = append(names, s.name)
		}
	}
	return names
}

// livesWithoutSockets is for an app that opens none, such as one that works on a
// queue. One that takes long to open its first must not replace one that serves.
func (v *readinessCheck) livesWithoutSockets() bool {
	patience := v.apps.Options.Readiness.FirstSocket
	v.say(fmt.Sprintf("the app has opened no socket, and has not run for %s without one (--ready-delay)", patience))
	return v.hasSaidSo() || time.Since(v.begun) >= patience
}

// namesAtMost is how many names one message lists.
const namesAtMost = 10

func listing(names []string) string {
	if more := len(names) - namesAtMost; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:namesAtMost], ", "), more)
	}
	return strings.Join(names, ", ")
}
