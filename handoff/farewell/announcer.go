package farewell

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// room is how many connections can be announced at a time. The kernel allocates per connection, and 3 MB ahead.
const room = 1 << 16

// listenersPaused is how many can be paused at a time, and with each the socket in which its new connections wait.
const listenersPaused = 1 << 12

// Announcer has the programs and the map of the connections that are announced. When it is closed, or its process has
// died, the kernel takes the connections out of the map, and they go on with their app as before.
//
// Its methods, and those of its farewells, may be called at the same time.
type Announcer struct {
	sockets  *ebpf.Map // cookie to socket: what the app sends there is seen by answers
	names    *ebpf.Map // socket to cookie
	records  *ebpf.Map // cookie to record
	held     *ebpf.Map // cookies of connections whose input is held back
	lease    *ebpf.Map // until when, in nanoseconds of CLOCK_MONOTONIC
	paused   *ebpf.Map // cookies of listeners, each with its own until when
	parkings *ebpf.Map // cookies of both a listener and its parking, to the latter
	search   *ebpf.Map // what the filter of requests works with
	http     *ebpf.Map // cookies of connections that come in where HTTP/1 was seen

	answers, requests, newcomers, selector *ebpf.Program

	unparked error // why new connections cannot be parked

	network uint64 // the number of this process's network namespace

	descriptors descriptors

	leases leases
	pauses pauses
	spoken evidence
	words  lastWords
}

// Open loads the programs into the kernel, which takes 3 ms. The error says which right or part of the kernel is missing. The caller closes the Announcer, after its farewells.
func Open() (*Announcer, error) {
	a := &Announcer{}
	err := MayDuplicate(os.Getpid())
	if err == nil {
		err = a.makeMaps()
	}
	if err == nil {
		a.network, err = ownNetwork()
	}
	if err == nil {
		a.descriptors.limit, err = descriptorShare()
	}
	if err == nil {
		err = a.load()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cannot tell clients that connections close: %w", err), a.Close())
	}
	a.leases.lease = a.lease
	a.unparked = a.prepareParking()
	return a, nil
}

func (a *Announcer) makeMaps() error {
	for _, m := range []struct {
		to   **ebpf.Map
		spec ebpf.MapSpec
	}{
		{&a.sockets, socketsSpec(room)},
		{&a.names, ebpf.MapSpec{Name: "grace_names", Type: ebpf.SkStorage, KeySize: 4, ValueSize: 8, Flags: unix.BPF_F_NO_PREALLOC,
			Key: &btf.Int{Name: "int", Size: 4, Encoding: btf.Signed}, Value: &btf.Int{Name: "long", Size: 8}}},
		{&a.records, ebpf.MapSpec{Name: "grace_records", Type: ebpf.Hash, KeySize: 8, ValueSize: recordSize, MaxEntries: room, Flags: unix.BPF_F_NO_PREALLOC}},
		{&a.held, ebpf.MapSpec{Name: "grace_held", Type: ebpf.Hash, KeySize: 8, ValueSize: 4, MaxEntries: room, Flags: unix.BPF_F_NO_PREALLOC}},
		{&a.http, ebpf.MapSpec{Name: "grace_http", Type: ebpf.Hash, KeySize: 8, ValueSize: 4, MaxEntries: room, Flags: unix.BPF_F_NO_PREALLOC}},
		{&a.lease, ebpf.MapSpec{Name: "grace_lease", Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1}},
		{&a.paused, ebpf.MapSpec{Name: "grace_paused", Type: ebpf.Hash, KeySize: 8, ValueSize: 8, MaxEntries: listenersPaused, Flags: unix.BPF_F_NO_PREALLOC}},
		{&a.parkings, ebpf.MapSpec{Name: "grace_parkings", Type: ebpf.SockHash, KeySize: 8, ValueSize: 8, MaxEntries: listenersPaused}},
		{&a.search, ebpf.MapSpec{Name: "grace_search", Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: searchSize, MaxEntries: 1}},
	} {
		made, err := ebpf.NewMap(&m.spec)
		if err != nil {
			return fmt.Errorf("the kernel makes no map %s: %w", m.spec.Name, explain(err))
		}
		*m.to = made
	}
	return nil
}

func socketsSpec(entries uint32) ebpf.MapSpec {
	return ebpf.MapSpec{Name: "grace_sockets", Type: ebpf.SockHash, KeySize: 8, ValueSize: 8, MaxEntries: entries}
}

func (a *Announcer) load() (err error) {
	a.answers, err = ebpf.NewProgram(&ebpf.ProgramSpec{Name: "grace_answers", Type: ebpf.SkMsg, License: license, Instructions: answers(a.names, a.records, a.http)})
	if err != nil {
		return fmt.Errorf("the kernel does not load the program for answers: %w", explain(err))
	}
	a.requests, err = ebpf.NewProgram(&ebpf.ProgramSpec{Name: "grace_requests", Type: ebpf.SocketFilter, License: license, Instructions: requests(a.records, a.held, a.lease, a.search)})
	if err != nil {
		return fmt.Errorf("the kernel does not load the filter of requests: %w", explain(err))
	}
	a.newcomers, err = ebpf.NewProgram(&ebpf.ProgramSpec{Name: "grace_newcomers", Type: ebpf.SocketFilter, License: license, Instructions: newcomers(a.paused)})
	if err != nil {
		return fmt.Errorf("the kernel does not load the filter of new connections: %w", explain(err))
	}
	err = link.RawAttachProgram(link.RawAttachProgramOptions{Target: a.sockets.FD(), Program: a.answers, Attach: ebpf.AttachSkMsgVerdict})
	if err != nil {
		return fmt.Errorf("the kernel does not attach the program for answers: %w", explain(err))
	}
	return nil
}

// Parks tells why new connections cannot wait beside a listener that is paused: their clients send again what is dropped, 200 ms later. nil: they can.
func (a *Announcer) Parks() error { return a.unparked }

// Supported tells in a moment, by making a map, whether this process has the rights and the kernel; Open may fail still, and an
// app may be one whose connections this process may not have (Denied).
func Supported() error {
	if err := MayDuplicate(os.Getpid()); err != nil {
		return err
	}
	spec := socketsSpec(1)
	m, err := ebpf.NewMap(&spec)
	if err != nil {
		return fmt.Errorf("the kernel makes no map of sockets: %w", explain(err))
	}
	return m.Close()
}

// license is what the kernel asks of programs that use its clock and its messages' data.
const license = "Dual BSD/GPL"

// explain says what to do about an error of the kernel's.
func explain(err error) error {
	switch {
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w (%s)", unix.EPERM, missing())
	case errors.Is(err, unix.EINVAL), errors.Is(err, ebpf.ErrNotSupported), errors.Is(err, unix.ENOSYS):
		return fmt.Errorf("%w (it takes Linux 5.17 with CONFIG_BPF_SYSCALL and CONFIG_BPF_STREAM_PARSER)", err)
	}
	return err
}

// missing says why an operation is not permitted. Both kinds of program, and maps of sockets, take CAP_NET_ADMIN, and functions
// CAP_BPF (bpf_prog_load and map_create in kernel/bpf/syscall.c).
func missing() string {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var have [2]unix.CapUserData
	if err := unix.Capget(&header, &have[0]); err != nil {
		return err.Error()
	}
	var names []string
	for name, number := range map[string]uint{"CAP_BPF": unix.CAP_BPF, "CAP_NET_ADMIN": unix.CAP_NET_ADMIN} {
		if have[number/32].Effective&(1<<(number%32)) == 0 {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return "grace has CAP_BPF and CAP_NET_ADMIN, but in a user namespace, or a seccomp profile does not allow bpf"
	}
	slices.Sort(names)
	return "grace has no " + strings.Join(names, " and no ") + ": start grace as root, or with CAP_BPF and CAP_NET_ADMIN"
}

// Close takes all connections out of the map. What is held comes through at once.
func (a *Announcer) Close() error {
	a.leases.end()
	errs := []error{a.words.close()}
	for _, p := range []*ebpf.Program{a.answers, a.requests, a.newcomers, a.selector} {
		if p != nil {
			errs = append(errs, p.Close())
		}
	}
	for _, m := range []*ebpf.Map{a.sockets, a.names, a.records, a.held, a.http, a.lease, a.paused, a.parkings, a.search} {
		if m != nil {
			errs = append(errs, m.Close())
		}
	}
	return errors.Join(errs...)
}

// put makes a connection known to both programs. fd stays the caller's, and the maps keep no reference to the socket. The
// map of sockets comes before the filter: it refuses what another program's map has, whose filter may be there, too.
func (a *Announcer) put(fd int, cookie uint64) error {
	err := a.records.Put(cookie, record{})
	if err == nil {
		err = a.names.Put(int32(fd), cookie)
	}
	if err == nil {
		err = a.sockets.Update(cookie, uint64(fd), ebpf.UpdateAny)
	}
	if err != nil {
		_ = a.names.Delete(int32(fd))
		a.forget(cookie)
		return err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ATTACH_BPF, a.requests.FD()); err != nil {
		a.remove(fd, cookie)
		return err
	}
	return nil
}

// remove undoes put. What is not there is not missed.
func (a *Announcer) remove(fd int, cookie uint64) {
	_ = a.sockets.Delete(cookie)
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0)
	_ = a.names.Delete(int32(fd))
	a.forget(cookie)
}

// forget is for a connection that is closed: what belongs to the socket has gone with it.
func (a *Announcer) forget(cookie uint64) {
	_ = a.held.Delete(cookie)
	_ = a.http.Delete(cookie)
	_ = a.records.Delete(cookie)
}

// look reads what the programs know of a connection.
func (a *Announcer) look(cookie uint64) (r record, ok bool) {
	return r, a.records.Lookup(cookie, &r) == nil
}
