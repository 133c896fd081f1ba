package socket

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/gracerun/grace/handoff/internal/inherited"
	"golang.org/x/sys/unix"
)

// Address is one socket to hold, as --listen gives it.
type Address struct {
	// Name is how the app tells this socket from others: letters, digits and "-_.".
	Name string
	// Network is tcp, tcp4, tcp6, udp, udp4, udp6, unix or unixgram, or fd for a socket that grace's own service
	// manager passes to it.
	Network string
	// Addr is host:port, an absolute path, @name in the abstract namespace, or a passed socket's name or number. It is kept as it was written, save
	// that a bare port becomes :port, because some apps find their socket by these very words.
	Addr string
	// Backlog is the length of the accept queue; 0 is the longest the kernel allows.
	Backlog int
	// V6Only is the wish about IPV6_V6ONLY.
	V6Only v6Wish
	// Steer gives each instance a socket of its own, which Steering.Own makes: Bind then only reserves the address, or
	// sees that nobody serves the path. It is for TCP and paths of unix streams.
	Steer bool
	// Mode is the permission of a unix path; 0 leaves it to the umask.
	Mode fs.FileMode
	// Owner and Group of a unix path are names or numbers; "" leaves them as they are.
	Owner, Group string
	// Options are set on the socket, in this order. On a TCP listener Nagle's algorithm is off if they do not say.
	Options []SocketOption
	// Written is the whole value as the user wrote it, for messages.
	Written string
}

// v6Wish says whether an IPv6 socket is closed to IPv4.
type v6Wish int

const (
	// v6Default leaves a tcp or udp socket open to both families and closes a tcp6 or udp6 one to IPv4.
	v6Default v6Wish = iota
	// v6Closed closes the socket to IPv4.
	v6Closed
	// v6Open opens the socket to both families.
	v6Open
)

const addressForms = "accepted are [NAME=]PORT, HOST:PORT, tcp://, tcp4://, tcp6://, udp://, udp4:// and udp6://HOST:PORT, " +
	"unix:///PATH, unix://@NAME, unixgram:///PATH, fd://NAME, with ?backlog=N, ?v6only=true|false, ?steer=true, " +
	"for a path ?mode=0660&owner=USER&group=GROUP, and options of the socket such as ?nodelay=false and ?keepalive=true"

// sunPath is the room for a unix path and its closing zero byte: 108 bytes on Linux, 104 on BSD and macOS.
const sunPath = len(unix.RawSockaddrUnix{}.Path)

// ParseAddress reads a --listen value: [NAME=]ADDRESS[?OPTION=VALUE[&OPTION=VALUE]].
// Its errors show the accepted forms.
func ParseAddress(s string) (Address, error) {
	a, err := parseAddress(s)
	if err != nil {
		return Address{}, fmt.Errorf("cannot read listen address %q: %w; %s", s, err, addressForms)
	}
	return a, nil
}

func parseAddress(s string) (Address, error) {
	name, rest, named := cutName(s)
	rest, query, _ := strings.Cut(rest, "?")
	a := Address{Name: name, Network: "tcp", Addr: rest, Written: s}
	if network, addr, ok := strings.Cut(rest, "://"); ok {
		a.Network, a.Addr = network, addr
	}
	if err := a.checkAddr(); err != nil {
		return Address{}, err
	}
	if err := a.readOptions(query); err != nil {
		return Address{}, err
	}
	if !named {
		a.Name = a.defaultName()
	}
	if !validName(a.Name) {
		return Address{}, fmt.Errorf("the name %q is not valid: use letters, digits, -, _ and . (NAME= in front of the address sets it)", a.Name)
	}
	return a, nil
}

// cutName splits NAME= off. A "=" behind the beginning of an address belongs to an option or a path.
func cutName(s string) (name, rest string, named bool) {
	name, rest, named = strings.Cut(s, "=")
	if !named || strings.ContainsAny(name, ":/?@[") {
		return "", s, false
	}
	return name, rest, true
}

func validName(name string) bool {
	return name != "" && strings.IndexFunc(name, func(r rune) bool { return !nameRune(r) }) < 0
}

func nameRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_.", r)
}

func (a *Address) defaultName() string {
	if a.Network == inherited.Network {
		return a.Addr
	}
	if a.Unix() {
		return path.Base(strings.TrimPrefix(a.Addr, "@"))
	}
	_, port, _ := net.SplitHostPort(a.Addr)
	return port
}

// Unix tells whether it is a unix socket's: a path, or a name in the abstract namespace.
func (a *Address) Unix() bool { return a.Network == "unix" || a.Network == "unixgram" }

// Stream tells whether connections are accepted from the socket.
func (a *Address) Stream() bool { return a.Network == "unix" || strings.HasPrefix(a.Network, "tcp") }

func (a *Address) abstract() bool { return a.Unix() && strings.HasPrefix(a.Addr, "@") }
func (a *Address) hasFile() bool  { return a.Unix() && !a.abstract() }

func (a *Address) checkAddr() error {
	switch a.Network {
	case "unix", "unixgram":
		return a.checkPath()
	case "tcp", "tcp4", "tcp6", "udp", "udp4", "udp6":
		return a.checkHostPort()
	case inherited.Network:
		return a.checkPassed()
	}
	return fmt.Errorf("unknown network %q", a.Network)
}

func (a *Address) checkPath() error {
	switch {
	case a.Addr == "" || a.Addr == "@":
		return errors.New("the path is empty")
	case strings.ContainsRune(a.Addr, 0):
		return errors.New("the path contains a NUL byte")
	case a.Addr[0] == '@' && len(a.Addr) > sunPath:
		return fmt.Errorf("the name has %d bytes, the kernel allows %d", len(a.Addr)-1, sunPath-1)
	case a.Addr[0] == '@':
		return nil
	case a.Addr[0] != '/':
		return fmt.Errorf("the path must be absolute: write %s:///%s", a.Network, a.Addr)
	case strings.HasSuffix(a.Addr, "/"):
		return errors.New("the path ends in /, so it names a directory")
	case len(a.Addr) > sunPath-1:
		return fmt.Errorf("the path has %d bytes, the kernel allows %d: use a shorter one", len(a.Addr), sunPath-1)
	}
	return nil
}

// checkPassed: systemd's names have no ":" (fdname_is_valid in systemd's src/basic/fd-util.c).
func (a *Address) checkPassed() error {
	if a.Addr == "" || strings.Contains(a.Addr, ":") {
		return errors.New("fd:// needs the name or the number of a socket that was passed to grace")
	}
	return nil
}

func (a *Address) checkHostPort() error {
	if a.Addr != "" && strings.Trim(a.Addr, "0123456789") == "" {
		a.Addr = ":" + a.Addr
	}
	if strings.HasPrefix(a.Addr, "/") {
		return fmt.Errorf("a path is written unix://%s", a.Addr)
	}
	host, port, err := net.SplitHostPort(a.Addr)
	if err != nil {
		return errors.New("it is neither PORT nor HOST:PORT (write an IPv6 host in brackets)")
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("the port %q is not a number from 0 to 65535", port)
	}
	return a.checkHost(host)
}

func (a *Address) checkHost(host string) error {
	ip, err := netip.ParseAddr(host)
	switch {
	case host == "":
		return nil
	case err != nil && (!validName(host) || strings.Contains(a.Addr, "[")):
		return fmt.Errorf("%q is neither an address nor a host name", host)
	case err != nil:
		return nil
	case ip.Is4() && strings.HasSuffix(a.Network, "6"), !ip.Is4() && strings.HasSuffix(a.Network, "4"):
		return fmt.Errorf("%s is not an address of %s", host, a.Network)
	}
	return nil
}

func (a *Address) readOptions(query string) error {
	options, err := url.ParseQuery(query)
	if err != nil {
		return fmt.Errorf("the options are not OPTION=VALUE&OPTION=VALUE: %w", err)
	}
	for _, option := range slices.Sorted(maps.Keys(options)) {
		if len(options[option]) > 1 {
			return fmt.Errorf("option %q is given twice", option)
		}
		if err := a.readOption(option, options[option][0]); err != nil {
			return err
		}
	}
	return a.checkSocketOptions()
}

func (a *Address) readOption(option, value string) error {
	if k, ok := optionNamed(option); ok && (a.Network != inherited.Network || !k.early) {
		return a.readSocketOption(k, value)
	}
	i := slices.IndexFunc(addressOptions, func(o addressOption) bool { return o.name == option })
	switch {
	case i < 0 && option != "freebind":
		return fmt.Errorf("unknown option %q", option)
	case a.Network == inherited.Network:
		return fmt.Errorf("option %q cannot be used with fd://%s: the socket exists already, and all instances share it; "+
			"use Backlog=, SocketMode= and the like in its .socket unit", option, a.Addr)
	case i < 0 || !addressOptions[i].fits(a):
		return a.unfit(option)
	}
	return addressOptions[i].read(a, value)
}

// addressOption is one that is not set on the socket.
type addressOption struct {
	name string
	fits func(*Address) bool
	read func(*Address, string) error
}

var addressOptions = []addressOption{
	{"backlog", (*Address).Stream, (*Address).readBacklog},
	{"v6only", (*Address).maybeV6, (*Address).readV6Only},
	{"steer", (*Address).Steerable, (*Address).readSteer},
	{"mode", (*Address).hasFile, (*Address).readMode},
	{"owner", (*Address).hasFile, func(a *Address, value string) error { return readName("owner", value, &a.Owner) }},
	{"group", (*Address).hasFile, func(a *Address, value string) error { return readName("group", value, &a.Group) }},
}

// Steerable tells whether Steer can be set.
func (a *Address) Steerable() bool {
	return strings.HasPrefix(a.Network, "tcp") || a.Network == "unix" && a.hasFile()
}

func (a *Address) maybeV6() bool {
	host, _, _ := net.SplitHostPort(a.Addr)
	ip, err := netip.ParseAddr(host)
	return !a.Unix() && !strings.HasSuffix(a.Network, "4") && (err != nil || ip.Is6())
}

func (a *Address) readBacklog(value string) error {
	n, err := strconv.ParseInt(value, 10, 32)
	if err != nil || n < 1 {
		return fmt.Errorf("backlog %q is not a number from 1 to 2147483647", value)
	}
	a.Backlog = int(n)
	return nil
}

func (a *Address) readSteer(value string) (err error) {
	if a.Steer, err = strconv.ParseBool(value); err != nil {
		return fmt.Errorf("steer=%s is neither true nor false", value)
	}
	return nil
}

func (a *Address) readV6Only(value string) error {
	only, err := strconv.ParseBool(value)
	if err != nil {
		return fmt.Errorf("v6only %q is not true or false", value)
	}
	a.V6Only = v6Open
	if only {
		a.V6Only = v6Closed
	}
	return nil
}

func (a *Address) readMode(value string) error {
	mode, err := strconv.ParseUint(value, 8, 32)
	if err != nil || mode == 0 || mode > 0o777 {
		return fmt.Errorf("mode %q is not an octal number from 0001 to 0777", value)
	}
	a.Mode = fs.FileMode(mode)
	return nil
}

func readName(option, value string, name *string) error {
	*name = value
	if value == "" {
		return fmt.Errorf("option %q is empty", option)
	}
	return nil
}
