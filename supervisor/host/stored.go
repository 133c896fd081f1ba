package host

import (
	"crypto/sha256"
	"fmt"
	"strings"

	"github.com/gracerun/grace/childproc"
	"github.com/gracerun/grace/handoff/socket"
	"golang.org/x/sys/unix"
)

// storedPrefix tells what grace has stored from what a .socket unit passes.
const storedPrefix = "grace-"

// Storing collects what grace's service manager is to keep for the next grace process.
type Storing struct {
	Has    func(name string) bool // it is kept, or there is no room
	Wanted map[string]bool
	Fresh  map[string]int // duplicates, which the caller owns
}

// add leaves out what cannot be duplicated: that is tried again when the state is saved next. A nil Storing adds nothing.
func (s *Storing) add(name string, fd int) {
	if s == nil || fd < 0 {
		return
	}
	s.Wanted[name] = true
	if _, twice := s.Fresh[name]; twice || s.Has(name) {
		return
	}
	if duplicate, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0); err == nil {
		s.Fresh[name] = duplicate
	}
}

// AddSteered may be called by who has the socket open.
func (s *Storing) AddSteered(inode uint64, fd int) { s.add(steeredName(inode), fd) }

func (s *Storing) addListener(l *socket.Listener) {
	if s == nil || l.Passed() { // its unit keeps it
		return
	}
	name := socketName(l.Inode())
	if outlivesStop(l.Address()) {
		name = listenerName(l)
	}
	if !l.Held() { // what is kept already stays
		s.Wanted[name] = true
		return
	}
	s.add(name, l.FD())
}

// outlivesStop leaves out unix sockets, whose path grace removes, and what only reserves an address.
func outlivesStop(a socket.Address) bool { return !a.Steer && !a.Unix() }

// OutlivesStop tells of a name whether it is that of a listener which a grace process can take from one that was stopped.
func OutlivesStop(name string) bool { return isHeld(name) || IsSteered(name) }

func isHeld(name string) bool {
	return strings.HasPrefix(name, storedPrefix+"socket-") && strings.Count(name, "-") == 3
}

// IsSteered tells of a name whether it is that of a socket of the app's own, or of a path's.
func IsSteered(name string) bool { return strings.HasPrefix(name, steeredPrefix) }

const steeredPrefix = storedPrefix + "steered-"

func steeredName(inode uint64) string { return fmt.Sprintf("%s%d", steeredPrefix, inode) }

// AddMemory adds what the state itself is written to.
func (s *Storing) AddMemory(m *StateMemory) { s.add(m.Name(), m.fd) }

func (s *Storing) addProcess(p childproc.ProcessState) { s.add(processName(p), p.PIDFD) }

func (s *Storing) addInstance(app *InstanceProcess) {
	if s == nil {
		return
	}
	for _, p := range app.processes {
		s.addProcess(p.State())
	}
	app.notify.Lend(func(inode uint64, fd int) { s.add(notifyName(app.start.Instance, inode), fd) })
	if app.calls != nil {
		app.calls.Lend(func(fd int) { s.add(callsName(app.start.Instance), fd) })
	}
}

func socketName(inode uint64) string { return fmt.Sprintf("%ssocket-%d", storedPrefix, inode) }

// listenerName finds a listener again by what was asked for, where no state says anything.
func listenerName(l *socket.Listener) string {
	return fmt.Sprintf("%s-%s", socketName(l.Inode()), written(l.Address()))
}

// written is fit for a name, and short.
func written(a socket.Address) string {
	sum := sha256.Sum256([]byte(a.Written))
	return fmt.Sprintf("%x", sum[:8])
}

func processName(p childproc.ProcessState) string {
	return fmt.Sprintf("%sprocess-%d-%d", storedPrefix, p.PID, p.Birth.Started)
}

func notifyName(instance int, inode uint64) string {
	return fmt.Sprintf("%snotify-%d-%d", storedPrefix, instance, inode)
}

func callsName(instance int) string { return fmt.Sprintf("%scalls-%d", storedPrefix, instance) }

// Kept are the descriptors that grace's service manager has kept for this process, by name. Whoever takes one removes it.
type Kept map[string]int

// FindKept takes those over that the process was given.
func FindKept() (Kept, error) {
	passed, err := socket.Passed()
	if err != nil {
		return nil, err
	}
	kept := Kept{}
	for fd, name := range passed {
		if strings.HasPrefix(name, storedPrefix) {
			kept[name] = fd
		}
	}
	return kept, nil
}

// Close closes what nobody has taken.
func (k Kept) Close() { closeAll(k) }

func (k Kept) take(name string) (fd int, ok bool) {
	if fd, ok = k[name]; ok {
		delete(k, name)
	}
	return fd, ok
}

// TakeSteered gives the sockets that the app of a grace process before had at its stop, and maybe at others before. The caller owns them.
func (k Kept) TakeSteered() (fds []int) {
	for name, fd := range k {
		if IsSteered(name) {
			fds = append(fds, fd)
			delete(k, name)
		}
	}
	return fds
}

// TakeStates gives the states that were kept, of each memory the newest one that is whole.
func (k Kept) TakeStates() (texts [][]byte) {
	for name, fd := range k {
		if !strings.HasPrefix(name, memoryPrefix) {
			continue
		}
		if text := readStateHalves(fd); text != nil {
			texts = append(texts, text)
		}
		unix.Close(fd)
		delete(k, name)
	}
	return texts
}

// takeNotify finds the socket that was bound last at the path of an instance.
func (k Kept) takeNotify(instance int) (fd int, ok bool) {
	prefix, last := fmt.Sprintf("%snotify-%d-", storedPrefix, instance), ""
	for name := range k {
		if strings.HasPrefix(name, prefix) && (len(name) > len(last) || len(name) == len(last) && name > last) {
			last = name
		}
	}
	return k.take(last)
}

// sockets gives those of the wanted inodes, and takes them.
func (k Kept) sockets(wanted []uint64) map[uint64]int {
	is := make(map[uint64]bool, len(wanted))
	for _, inode := range wanted {
		is[inode] = true
	}
	found := map[uint64]int{}
	for name, fd := range k {
		var stat unix.Stat_t
		if (strings.HasPrefix(name, storedPrefix+"socket-") || IsSteered(name)) && unix.Fstat(fd, &stat) == nil && is[stat.Ino] && found[stat.Ino] == 0 {
			found[stat.Ino] = fd
			delete(k, name)
		}
	}
	return found
}

// TakeListener gives the listener that a grace process before had for the same words, and nil if none is kept.
func (k Kept) TakeListener(a socket.Address) (*socket.Listener, error) {
	if !outlivesStop(a) {
		return nil, nil
	}
	for name, fd := range k {
		if isHeld(name) && strings.HasSuffix(name, "-"+written(a)) {
			delete(k, name)
			return socket.HoldKept(a, fd)
		}
	}
	return nil, nil
}
