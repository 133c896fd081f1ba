package control

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Socket is the control socket of a grace process: the path that clients find it by, the listening
// descriptor, and a lock that says that the name is taken as long as anybody has it
// open. The successor of a reexec inherits both descriptors. It is for one goroutine.
type Socket struct {
	Name, Path     string
	listener, lock int
	bound          fileID // what is at the path
}

// Open makes the control socket of the grace process called name, in the first directory
// where it can. Without a name it is called as the working directory is, with a number
// if another one is called so already. A *TakenError says that another grace process has
// the name; any other error that no directory can have the socket, and an app can be
// served without.
func Open(name string) (*Socket, error) {
	if name != "" {
		if err := CheckName(name); err != nil {
			return nil, err
		}
	}
	var failed error
	for _, dir := range socketDirs() {
		s, err := openIn(dir, name)
		if taken := (*TakenError)(nil); err == nil || errors.As(err, &taken) {
			return s, err
		}
		if failed != nil {
			err = fmt.Errorf("%w; %w", failed, err)
		}
		failed = err
	}
	return nil, fmt.Errorf("%w (set XDG_RUNTIME_DIR or RUNTIME_DIRECTORY to a directory of your own)", failed)
}

func openIn(dir, name string) (*Socket, error) {
	if err := secureDir(dir); err != nil {
		return nil, err
	}
	removeStale(dir)
	if name != "" {
		return openNamed(dir, name)
	}
	name = DefaultName()
	s, err := openNamed(dir, name)
	for n := 2; n <= maxDefaultNames; n++ {
		if taken := (*TakenError)(nil); !errors.As(err, &taken) {
			break
		}
		s, err = openNamed(dir, fmt.Sprintf("%s-%d", name, n))
	}
	return s, err
}

func openNamed(dir, name string) (*Socket, error) {
	s := &Socket{Name: name, Path: filepath.Join(dir, name+suffix), listener: -1}
	var err error
	if s.lock, err = takeLockRetrying(s.lockPath()); errors.Is(err, unix.EWOULDBLOCK) {
		return nil, &TakenError{Name: name, Path: s.Path, PID: readPID(s.lockPath())}
	}
	if err != nil {
		return nil, fmt.Errorf("cannot lock %s: %w", s.lockPath(), err)
	}
	if err = s.bind(); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot listen at %s: %w", s.Path, err), s.Close())
	}
	s.writePID()
	return s, nil
}

func (s *Socket) lockPath() string { return strings.TrimSuffix(s.Path, suffix) + ".lock" }

const (
	lockTries = 100
	lockPause = 10 * time.Millisecond
)

// takeLockRetrying tries again where the one whose lock it was has ended: then another grace process is about to remove it, or the kernel is.
func takeLockRetrying(path string) (int, error) {
	for try := 1; ; try++ {
		lock, err := takeLock(path)
		pid := readPID(path)
		if err != unix.EWOULDBLOCK || try == lockTries || pid != 0 && !ending(pid) {
			return lock, err
		}
		time.Sleep(lockPause)
	}
}

// ending is true as well of a process that was killed and is not reaped: the kernel takes its memory before it closes what it has
// open (do_exit in kernel/exit.c).
func ending(pid int) bool {
	_, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	return errors.Is(err, fs.ErrNotExist)
}

// takeLock: who ends removes the file while it has the lock, so a lock counts only as
// long as it is the path's.
func takeLock(path string) (int, error) {
	for {
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return -1, err
		}
		if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
			unix.Close(fd)
			return -1, err
		}
		if sameFile(fd, path) {
			return fd, nil
		}
		unix.Close(fd)
	}
}

func sameFile(fd int, path string) bool {
	var open, there unix.Stat_t
	return unix.Fstat(fd, &open) == nil && unix.Lstat(path, &there) == nil && open.Dev == there.Dev && open.Ino == there.Ino
}

func readPID(path string) int {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	pid, _ := strconv.Atoi(strings.TrimSpace(string(text))) // 0 is unknown
	return pid
}

// removeStale removes what killed grace processes have left: one that lives has a lock, which the kernel gives free with its
// last owner, and which travels to the successor of a reexec. A name that is claimed meanwhile has another lock by then.
func removeStale(dir string) {
	locks, _ := filepath.Glob(filepath.Join(dir, "*.lock")) // nothing depends on it
	for _, path := range locks {
		name := strings.TrimSuffix(filepath.Base(path), ".lock")
		info, err := os.Lstat(path)
		if err != nil || !info.Mode().IsRegular() || CheckName(name) != nil {
			continue
		}
		lock, err := takeLock(path)
		if err != nil {
			continue // it lives, or is another user's
		}
		left := &Socket{Name: name, Path: filepath.Join(dir, name+suffix), listener: -1, lock: lock}
		_ = left.Close() // what cannot be removed stays
	}
}

// writePID writes into the lock who has it, for people. What a full disk leaves unsaid is no
// reason to go without the socket.
func (s *Socket) writePID() {
	if unix.Ftruncate(s.lock, 0) == nil {
		_, _ = unix.Pwrite(s.lock, fmt.Appendf(nil, "%d\n", os.Getpid()), 0)
	}
}

// bind makes the socket with the lock held: what is at the path belongs to nobody who
// lives.
func (s *Socket) bind() error {
	if err := os.Remove(s.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	name, release, err := shortPath(s.Path)
	if err != nil {
		return err
	}
	defer release()
	if s.listener, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return err
	}
	// The path gets the mode of the socket, less the umask (unix_bind_bsd in
	// net/unix/af_unix.c): it is never more than private, and chmod gives back what
	// an odd umask took.
	if err := unix.Fchmod(s.listener, 0o600); err != nil {
		return err
	}
	if err := unix.Bind(s.listener, &unix.SockaddrUnix{Name: name}); err != nil {
		return err
	}
	if err := os.Chmod(s.Path, 0o600); err != nil {
		return err
	}
	s.bound, _ = s.atPath() // what has gone already is not there
	return unix.Listen(s.listener, defaultLimits.connections)
}

func (s *Socket) atPath() (fileID, bool) {
	var stat unix.Stat_t
	err := unix.Lstat(s.Path, &stat)
	return fileID{uint64(stat.Dev), stat.Ino}, err == nil
}

// InPlace reports whether clients can find the socket, and nobody else can take the name.
func (s *Socket) InPlace() bool {
	now, there := s.atPath()
	return there && now == s.bound && sameFile(s.lock, s.lockPath())
}

// Renew makes the socket anew where it has gone, or, without its directory, in another directory. The old one is the
// caller's to leave.
func (s *Socket) Renew() (*Socket, error) {
	if !sameFile(s.lock, s.lockPath()) {
		return Open(s.Name)
	}
	lock, err := unix.FcntlInt(uintptr(s.lock), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot create the control socket %s again: %w", s.Path, err)
	}
	fresh := &Socket{Name: s.Name, Path: s.Path, listener: -1, lock: lock}
	if err := fresh.bind(); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot create the control socket %s again: %w", s.Path, err), fresh.Leave())
	}
	return fresh, nil
}

// Adopt takes over a socket that another grace process has opened, with its descriptors, which
// it owns from now on. It is for the successor, and makes it the one that is asked.
func Adopt(path string, listener, lock int) (*Socket, error) {
	s := &Socket{Name: strings.TrimSuffix(filepath.Base(path), suffix), Path: path, listener: listener, lock: lock}
	unix.CloseOnExec(listener)
	unix.CloseOnExec(lock)
	// To listen once more makes this process the one that clients see (unix_listen in
	// net/unix/af_unix.c).
	if err := unix.Listen(listener, defaultLimits.connections); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot take over the control socket %s: %w", path, err), s.Leave())
	}
	s.bound, _ = s.atPath() // what has gone is seen by There
	s.writePID()
	return s, nil
}

// Descriptors are what Adopt needs; they stay the socket's.
func (s *Socket) Descriptors() (listener, lock int) { return s.listener, s.lock }

// Listener gives a listener of its own for a Server, which can end while the socket,
// and who waits in its queue, remain.
func (s *Socket) Listener() (*net.UnixListener, error) {
	fd, err := unix.FcntlInt(uintptr(s.listener), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot duplicate the control socket: %w", err)
	}
	file := os.NewFile(uintptr(fd), s.Path)
	defer file.Close()
	l, err := net.FileListener(file)
	if err != nil {
		return nil, fmt.Errorf("cannot serve on the control socket: %w", err)
	}
	return l.(*net.UnixListener), nil // which does not unlink its path: it was not made by a path
}

// Leave closes the descriptors, and leaves the path and the name to a successor. A second Leave or Close does nothing more.
func (s *Socket) Leave() error {
	var errs []error
	for _, fd := range []*int{&s.listener, &s.lock} {
		if *fd >= 0 {
			errs = append(errs, unix.Close(*fd))
		}
		*fd = -1
	}
	return errors.Join(errs...)
}

// Close removes the path and gives the name free. It leaves alone what somebody else has made there since.
func (s *Socket) Close() error {
	if s.lock < 0 {
		return nil // it was left
	}
	if s.listener >= 0 && !s.InPlace() {
		return s.Leave()
	}
	var err error
	for _, path := range []string{s.Path, s.lockPath()} {
		if failed := os.Remove(path); !errors.Is(failed, fs.ErrNotExist) {
			err = errors.Join(err, failed)
		}
	}
	return errors.Join(err, s.Leave())
}
