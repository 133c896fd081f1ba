package supervisor

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/gracerun/grace/supervisor/host"
	"golang.org/x/sys/unix"
)

// fdStore is where systemd keeps descriptors for the next grace process (FileDescriptorStoreMax=): for what comes from there grace needs no
// right to look into the app. It belongs to the one who saves the state; nil is none.
type fdStore struct {
	address *unix.SockaddrUnix
	socket  int
	most    int
	stored  map[string]bool
	full    bool // something found no room
	memory  *host.StateMemory
	known   atomic.Pointer[[]string]
}

// storePatience is how long the service manager may take.
const storePatience = 2 * time.Second

// openFDStore gives nil where systemd keeps nothing. It says how much it keeps in FDSTORE since version 254; before that the unit has to
// set the variable.
func openFDStore(stored []string) (*fdStore, error) {
	most, err := strconv.Atoi(os.Getenv("FDSTORE"))
	path := os.Getenv("NOTIFY_SOCKET")
	if err != nil || most <= 0 || path == "" {
		return nil, nil
	}
	s := &fdStore{address: &unix.SockaddrUnix{Name: path}, most: most, stored: map[string]bool{}}
	for _, name := range stored {
		s.stored[name] = true
	}
	s.publish()
	if s.socket, err = unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return nil, fmt.Errorf("cannot reach the service manager's store of descriptors: %w", err)
	}
	limit := unix.NsecToTimeval(int64(storePatience))
	if err := unix.SetsockoptTimeval(s.socket, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit); err != nil {
		return nil, errors.Join(err, unix.Close(s.socket))
	}
	if s.memory, err = host.NewStateMemory(); err != nil {
		return nil, errors.Join(err, unix.Close(s.socket))
	}
	return s, nil
}

// storing is nil without a store.
func (s *fdStore) storing() *host.Storing {
	if s == nil {
		return nil
	}
	return &host.Storing{Has: s.has, Wanted: map[string]bool{}, Fresh: map[string]int{}}
}

// keepState writes the state to memory that the service manager has. It reports false where that has none.
func (s *fdStore) keepState(number uint64, text []byte) (kept bool, err error) {
	if s == nil {
		return false, nil
	}
	err = s.memory.Write(number, text)
	return err == nil && s.stored[s.memory.Name()], err
}

// has reports whether a descriptor is there by its name, or has no room.
func (s *fdStore) has(name string) bool {
	if s.stored[name] {
		return true
	}
	full := len(s.stored) >= s.most
	s.full = s.full || full
	return full
}

// names are of what is stored. Any goroutine may call it.
func (s *fdStore) names() []string {
	if s == nil {
		return nil
	}
	return *s.known.Load()
}

func (s *fdStore) publish() {
	names := slices.Collect(maps.Keys(s.stored))
	s.known.Store(&names)
}

// keep stores what is fresh, which it closes. The service manager reads what a process has sent before it learns of the end of the process
// (manager_dispatch_notify_message in systemd's src/core/manager.c): nobody has to wait for an answer.
func (s *fdStore) keep(w *host.Storing) error {
	if s == nil {
		return nil
	}
	var errs []error
	defer s.publish()
	for name, fd := range w.Fresh {
		// without FDPOLL=0 it drops sockets that were shut down, and processes that have ended: how they have, the pidfd tells
		err := s.send("FDSTORE=1\nFDPOLL=0\nFDNAME="+name, fd)
		if err == nil {
			s.stored[name] = true
		}
		errs = append(errs, err, unix.Close(fd))
	}
	if s.full {
		s.full = false
		errs = append(errs, fmt.Errorf("the service manager keeps %d descriptors at most (raise FileDescriptorStoreMax= in the unit)", s.most))
	}
	return errors.Join(errs...)
}

// spare has those stay that the apps had bound themselves.
func (s *fdStore) spare(w *host.Storing) {
	if s == nil {
		return
	}
	for name := range s.stored {
		w.Wanted[name] = w.Wanted[name] || host.IsSteered(name)
	}
}

// clear takes out what is not wanted any more. It comes after the state that does not tell of it.
func (s *fdStore) clear(w *host.Storing) error {
	if s == nil {
		return nil
	}
	var errs []error
	defer s.publish()
	for name := range s.stored {
		if !w.Wanted[name] {
			errs = append(errs, s.send("FDSTOREREMOVE=1\nFDNAME="+name))
			delete(s.stored, name)
		}
	}
	return errors.Join(errs...)
}

func (s *fdStore) send(text string, fds ...int) error {
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	for {
		err := unix.Sendmsg(s.socket, []byte(text), rights, s.address, unix.MSG_NOSIGNAL)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("cannot keep descriptors with the service manager: %w", err)
		}
		return nil
	}
}

// empty takes everything out, and returns when that is done: an address is in use while the service manager has a socket there.
func (s *fdStore) empty(names []string) error {
	if s == nil || len(names) == 0 {
		return nil
	}
	for _, name := range names {
		delete(s.stored, name)
		if err := s.send("FDSTOREREMOVE=1\nFDNAME=" + name); err != nil {
			return err
		}
	}
	return s.await()
}

// await returns when the service manager has done what it was sent.
func (s *fdStore) await() error {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	defer unix.Close(pipe[0])
	err := s.send("BARRIER=1", pipe[1])
	unix.Close(pipe[1])
	if err != nil {
		return err
	}
	for deadline := time.Now().Add(storePatience); ; {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pipe[0])}}, int(max(time.Until(deadline).Milliseconds(), 0)))
		if err == unix.EINTR {
			continue
		}
		if err == nil && n == 0 {
			err = errors.New("the service manager has not answered in time")
		}
		return err
	}
}

// close leaves the listeners there that the next grace process has as well, if it is started at once: clients wait meanwhile.
func (s *fdStore) close() error {
	if s == nil {
		return nil
	}
	w := s.storing()
	for name := range s.stored {
		w.Wanted[name] = host.OutlivesStop(name)
	}
	return errors.Join(s.clear(w), unix.Close(s.socket), s.memory.Close())
}
