package socket

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gracerun/grace/handoff/internal/inherited"
	"golang.org/x/sys/unix"
)

// SocketOption is a wish about a socket beyond its address, by the name that it has in systemd.socket(5) or nearly so.
type SocketOption struct {
	Name  string
	Value int // as the kernel takes it
}

// optionKind is a SocketOption that there can be. Most servers set theirs on the sockets that they open, and not on those
// that they are given. Connections inherit what their listener has (sk_clone_lock in net/core/sock.c).
type optionKind struct {
	name string
	fits func(*Address) bool
	read func(string) (int, error)
	set  func(fd, value int) error
	// early says that it must come before bind, too late for a socket that is passed to grace.
	early bool
}

func optionNamed(name string) (optionKind, bool) {
	kinds := optionKinds()
	i := slices.IndexFunc(kinds, func(k optionKind) bool { return k.name == name })
	if i < 0 {
		return optionKind{}, false
	}
	return kinds[i], true
}

func (a *Address) tcp() bool       { return a.Stream() && !a.Unix() }
func (a *Address) inet() bool      { return !a.Unix() }
func (a *Address) unsteered() bool { return a.tcp() && !a.Steer }

// buffered is false for unix streams, whose connections do not inherit the buffers of their listener.
func (a *Address) buffered() bool { return a.Network != "unix" }

func (a *Address) readSocketOption(k optionKind, value string) error {
	n, err := k.read(value)
	if err != nil {
		return fmt.Errorf("%s=%s: %w", k.name, value, err)
	}
	a.Options = append(a.Options, SocketOption{k.name, n})
	return nil
}

// checkSocketOptions is called when all options are known.
func (a *Address) checkSocketOptions() error {
	for _, o := range a.Options {
		if strings.HasPrefix(o.Name, "keepalive-") && !slices.Contains(a.Options, SocketOption{"keepalive", 1}) {
			return fmt.Errorf("%s has no effect without keepalive=true", o.Name)
		}
		if k, _ := optionNamed(o.Name); a.Network != inherited.Network && !k.fits(a) {
			return a.unfit(o.Name)
		}
	}
	return nil
}

func (a *Address) unfit(option string) error {
	if option == "defer-accept" && a.Steer {
		return errors.New("defer-accept cannot be combined with steer=true: a connection that has sent nothing is in no queue, " +
			"and is lost when its generation ends")
	}
	return fmt.Errorf("option %q cannot be used with %s://%s", option, a.Network, a.Addr)
}

// setSocketOptions also switches Nagle's algorithm off, unless it is wanted: a server that writes a response in two parts
// lets the second one wait for the client's delayed acknowledgement otherwise, 40 ms. Servers do so on the sockets that
// they open (asyncio, gunicorn, puma, Go), and many forget it on one that they are given.
func (a *Address) setSocketOptions(fd int) error {
	if err := a.setNoDelay(fd); err != nil {
		return fmt.Errorf("cannot set nodelay: %w", err)
	}
	for _, o := range a.Options {
		k, _ := optionNamed(o.Name)
		if k.set == nil || !k.fits(a) {
			return a.unfit(o.Name)
		}
		if err := k.set(fd, o.Value); err != nil {
			return fmt.Errorf("cannot set %s=%d: %w", o.Name, o.Value, err)
		}
	}
	return nil
}

func (a *Address) setNoDelay(fd int) error {
	if !a.tcp() {
		return nil
	}
	err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	if err == unix.EOPNOTSUPP {
		return nil // a multipath socket that was passed to grace, before Linux 5.17
	}
	return err
}

func readSwitch(value string) (int, error) {
	on, err := strconv.ParseBool(value)
	if err != nil {
		return 0, errors.New("it is neither true nor false")
	}
	if on {
		return 1, nil
	}
	return 0, nil
}

func readNumber(least, most int64) func(string) (int, error) {
	return func(value string) (int, error) {
		n, err := strconv.ParseInt(value, 0, 64)
		if err != nil || n < least || n > most {
			return 0, fmt.Errorf("it is not a number from %d to %d", least, most)
		}
		return int(n), nil
	}
}

// readSpan reads a time in whole units of the kernel's.
func readSpan(unit, most time.Duration) func(string) (int, error) {
	return func(value string) (int, error) {
		span, err := time.ParseDuration(value)
		if err != nil || span < unit || span > most || span%unit != 0 {
			return 0, fmt.Errorf("it is not a time from %v to %v in steps of %v, as in 30s", unit, most, unit)
		}
		return int(span / unit), nil
	}
}

func readSize(value string) (int, error) {
	digits, shift := value, 0
	for suffix, bits := range map[string]int{"K": 10, "M": 20, "G": 30} {
		if cut, ok := strings.CutSuffix(value, suffix); ok {
			digits, shift = cut, bits
		}
	}
	n, err := strconv.ParseUint(digits, 10, 31)
	if err != nil || n == 0 || n > 1<<30>>shift {
		return 0, errors.New("it is not a number of bytes from 1 to 1G, as in 4M")
	}
	return int(n << shift), nil
}

// optionKinds is the table of all socket options. The kernel's limits are those of do_tcp_setsockopt in net/ipv4/tcp.c.
func optionKinds() []optionKind {
	day := 24 * time.Hour
	return []optionKind{
		{name: "nodelay", fits: (*Address).tcp, read: readSwitch, set: setting(unix.IPPROTO_TCP, unix.TCP_NODELAY)},
		{name: "keepalive", fits: (*Address).tcp, read: readSwitch, set: setting(unix.SOL_SOCKET, unix.SO_KEEPALIVE)},
		{name: "keepalive-time", fits: (*Address).tcp, read: readSpan(time.Second, 32767*time.Second), set: setting(unix.IPPROTO_TCP, unix.TCP_KEEPIDLE)},
		{name: "keepalive-interval", fits: (*Address).tcp, read: readSpan(time.Second, 32767*time.Second), set: setting(unix.IPPROTO_TCP, unix.TCP_KEEPINTVL)},
		{name: "keepalive-probes", fits: (*Address).tcp, read: readNumber(1, 127), set: setting(unix.IPPROTO_TCP, unix.TCP_KEEPCNT)},
		{name: "user-timeout", fits: (*Address).tcp, read: readSpan(time.Millisecond, day), set: setting(unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT)},
		{name: "defer-accept", fits: (*Address).unsteered, read: readSpan(time.Second, day), set: setting(unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT)},
		{name: "fastopen", fits: (*Address).tcp, read: readNumber(1, math.MaxInt32), set: setting(unix.IPPROTO_TCP, unix.TCP_FASTOPEN)},
		{name: "receive-buffer", fits: (*Address).buffered, read: readSize, set: buffer("rmem_max", unix.SO_RCVBUF, unix.SO_RCVBUFFORCE)},
		{name: "send-buffer", fits: (*Address).buffered, read: readSize, set: buffer("wmem_max", unix.SO_SNDBUF, unix.SO_SNDBUFFORCE)},
		{name: "mark", fits: (*Address).inet, read: readNumber(0, math.MaxUint32), set: setting(unix.SOL_SOCKET, unix.SO_MARK)},
		{name: "freebind", fits: (*Address).inet, read: readSwitch, set: setting(unix.IPPROTO_IP, unix.IP_FREEBIND), early: true},
	}
}

func setting(level, option int) func(fd, value int) error {
	return func(fd, value int) error { return unix.SetsockoptInt(fd, level, option, value) }
}

// buffer goes beyond what the machine allows everybody, if grace may. The kernel cuts what it does not allow without a
// word, and doubles the rest (socket(7)).
func buffer(limit string, option, force int) func(fd, value int) error {
	return func(fd, value int) error {
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, value) == nil {
			return nil
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, value); err != nil {
			return err
		}
		got, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, option)
		if err == nil && got/2 < value {
			err = fmt.Errorf("this machine allows %d bytes without CAP_NET_ADMIN: raise net.core.%s", got/2, limit)
		}
		return err
	}
}
