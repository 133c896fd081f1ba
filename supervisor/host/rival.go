package host

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/gracerun/grace/childproc"
	"github.com/gracerun/grace/handoff/sockdiag"
	"github.com/gracerun/grace/handoff/socket"
	"github.com/gracerun/grace/supervisor/machine"
)

// EvictGrace is how long an evicted process has between TERM and KILL.
const EvictGrace = 5 * time.Second

// evict ends who has an address, with --evict, so that it can be bound after all. Its error says who that is, and what
// can be done.
func (a *Host) evict(inUse *socket.InUseError) error {
	if a.Takeover.wanted() && a.Takeover.has(inUse) {
		return nil
	}
	kin, err := childproc.Tree(os.Getpid())
	if err != nil {
		return errors.Join(inUse, err)
	}
	ours := func(h sockdiag.Holder) bool { return slices.Contains(kin, h.PID) }
	switch {
	case inUse.Own():
		return fmt.Errorf("%w%s (grace holds this address for the app, by --listen: make the app take that socket, see --dialect, or leave --listen out)", inUse, a.otherwiseWritten(inUse.Address.Addr))
	case slices.ContainsFunc(inUse.Holders, ours):
		return fmt.Errorf("%w (this is a process of the app, which --evict does not end, and grace neither holds nor captures its socket: use --capture on, or hold the address with --listen)", inUse)
	case a.Takeover.wanted():
		return a.takeOver(inUse)
	case !a.Options.Evict:
		return fmt.Errorf("%w (%s)", inUse, InUseRemedy(inUse))
	}
	a.Post(machine.Noticed{Text: "evicting", Why: inUse.Error()})
	return socket.Evict(inUse, EvictGrace)
}

// otherwiseWritten says that --listen has the address of an app in another form. nginx and php-fpm find an inherited socket by
// its address: listen 80 of nginx is 0.0.0.0:80, and :80 of --listen is [::]:80.
func (a *Host) otherwiseWritten(wanted string) string {
	var held []string
	for _, l := range a.Listeners {
		if l.Bound() == wanted {
			return ""
		}
		held = append(held, l.Bound())
	}
	if len(held) == 0 {
		return ""
	}
	return fmt.Sprintf(", by --listen %s: nginx and php-fpm take only a socket of exactly their own address, as tcp4://:80 for 0.0.0.0:80", strings.Join(held, ", "))
}

// InUseRemedy is what can be done where grace cannot bind an address of --listen, or an app one of its own.
func InUseRemedy(inUse *socket.InUseError) string {
	if inUse.Own() {
		return "use --listen fd://NAME for a socket that the service manager has passed, and no address twice"
	}
	return "stop that process, choose another address, replace it with --takeover, or use --evict to end it"
}

// withEviction tries a bind again when who had the address has gone.
func (a *Host) withEviction(bind func() error) error {
	err := bind()
	inUse := (*socket.InUseError)(nil)
	if !errors.As(err, &inUse) {
		return err
	}
	if err := a.evict(inUse); err != nil {
		return err
	}
	return bind()
}

// rivals says where the generation that is to be replaced listens without grace: no other can bind there beside it,
// which is why a candidate may have ended.
func (a *Host) rivals(app *InstanceProcess) string {
	if app.start.Predecessor == 0 {
		return ""
	}
	pids, err := childproc.Tree(os.Getpid())
	if err != nil {
		return ""
	}
	pids = slices.DeleteFunc(pids, func(pid int) bool { return pid == os.Getpid() })
	listening, err := sockdiag.Listening(pids)
	if err != nil {
		return ""
	}
	for _, l := range a.Held {
		delete(listening, l.Inode())
	}
	if a.Steering != nil { // of a generation that finishes its connections too
		maps.DeleteFunc(listening, func(inode uint64, _ netip.AddrPort) bool { return a.Steering.Has(inode) })
	}
	if len(listening) == 0 {
		return ""
	}
	return fmt.Sprintf("generation %d listens on %s with a socket that grace neither holds nor captures, so no other generation can listen there (use --capture on, or hold the address with --listen)",
		app.start.Predecessor, addressesOf(listening))
}

func addressesOf(listening map[uint64]netip.AddrPort) string {
	var addresses []string
	for _, at := range listening {
		addresses = append(addresses, at.String())
	}
	slices.Sort(addresses)
	return strings.Join(slices.Compact(addresses), ", ")
}
