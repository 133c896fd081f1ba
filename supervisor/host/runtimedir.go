package host

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/gracerun/grace/childproc"
)

// RuntimeDir is where one grace process keeps its sockets; the empty one stands for the
// abstract namespace, where no directory can be written.
type RuntimeDir struct {
	Path string
	// Lock is the directory, open and locked (flock(2)) as long as a grace process has it; 0 for that of a grace process which locked
	// none. The kernel gives the lock free with its last owner. systemd-tmpfiles leaves alone what is locked so.
	Lock int
}

// The name says that a living grace has the directory locked. It is made under another one, which nobody sweeps.
const (
	runtimePrefix  = "grace-run-"
	unlockedPrefix = ".grace-new-"
)

// NewRuntimeDir makes the directory that a grace process would keep its sockets in, and gives
// what removes it. The path is empty where none can be made.
func NewRuntimeDir(identity *childproc.Identity) (path string, remove func() error) {
	d := OpenRuntimeDir(identity)
	return d.Path, d.Close
}

// OpenRuntimeDir makes a directory that only grace and, for passing through, its
// apps can enter.
func OpenRuntimeDir(identity *childproc.Identity) RuntimeDir {
	for _, parent := range runtimeParents(identity != nil) {
		if d, err := makeRuntimeDir(parent, runtimeMode(identity)); err == nil {
			return d
		}
	}
	return RuntimeDir{}
}

func makeRuntimeDir(parent string, mode fs.FileMode) (d RuntimeDir, err error) {
	fresh, err := os.MkdirTemp(parent, unlockedPrefix)
	if err != nil {
		return RuntimeDir{}, err
	}
	d.Path = filepath.Join(parent, runtimePrefix+strings.TrimPrefix(filepath.Base(fresh), unlockedPrefix))
	if err = os.Chmod(fresh, mode); err == nil { // whatever the umask is
		d.Lock, err = lockDir(fresh)
	}
	if err == nil {
		err = os.Rename(fresh, d.Path)
	}
	if err != nil {
		return RuntimeDir{}, errors.Join(err, d.unlock(), os.Remove(fresh))
	}
	return d, nil
}

func runtimeMode(identity *childproc.Identity) fs.FileMode {
	if identity == nil {
		return 0o700
	}
	return 0o711
}

// stateName is the file that says how to go on with the apps after their grace process was killed.
const stateName = "state"

// notifyPrefix begins the names of the apps' sockets (childproc.OpenNotify).
const notifyPrefix = "notify-"

// longestState is far beyond what a thousand instances need.
const longestState = 16 << 20

// mine reports whether root, or this process's user, has a file. Root may look at everybody's.
func mine(uid uint32) bool { return int(uid) == os.Geteuid() || os.Geteuid() == 0 }

// EveryRuntimeDir lists those that this process may look into, root those of all users. They are only to be looked at.
func EveryRuntimeDir() (all []RuntimeDir) {
	parents := runtimeParents(false)
	for _, pattern := range []string{"/run/grace/*", "/run/user/*"} {
		found, _ := filepath.Glob(pattern) // the patterns are well formed
		parents = append(parents, found...)
	}
	slices.Sort(parents)
	for _, parent := range slices.Compact(parents) {
		paths, _ := filepath.Glob(filepath.Join(parent, runtimePrefix+"*"))
		for _, path := range paths {
			all = append(all, RuntimeDir{Path: path})
		}
	}
	return all
}

// RuntimeDirs are all of this user, those of living grace processes too. None is locked by this process.
func RuntimeDirs() (all []RuntimeDir) {
	var parents []string
	for _, parent := range runtimeParents(false) {
		if !slices.Contains(parents, parent) {
			parents, all = append(parents, parent), append(all, runtimeDirsIn(parent)...)
		}
	}
	return all
}

func runtimeDirsIn(parent string) (all []RuntimeDir) {
	paths, _ := filepath.Glob(filepath.Join(parent, runtimePrefix+"*")) // the pattern is well formed
	for _, path := range paths {
		if d := (RuntimeDir{Path: path}); d.own() == nil {
			all = append(all, d)
		}
	}
	return all
}

// Take locks the directory, and reports whether that went well: then its grace process has been killed.
func (d *RuntimeDir) Take() (taken bool) {
	var err error
	d.Lock, err = lockDir(d.Path)
	return err == nil
}

// Recreate makes the directory again, at its path, where a service manager has removed it together with the grace process that was killed,
// and locks it. It fails where somebody else has it locked, and where no grace process has such directories.
func (d *RuntimeDir) Recreate(identity *childproc.Identity) (err error) {
	if !strings.HasPrefix(filepath.Base(d.Path), runtimePrefix) || !slices.Contains(runtimeParents(false), filepath.Dir(d.Path)) {
		return fmt.Errorf("%s is not where this grace process has its runtime directory", d.Path)
	}
	if err := d.restore(identity); err != nil {
		return fmt.Errorf("cannot make the runtime directory %s again: %w", d.Path, err)
	}
	d.Lock, err = lockDir(d.Path)
	return err
}

// Leave leaves the directory as it is to the next grace process.
func (d *RuntimeDir) Leave() error { return d.unlock() }

// Remove removes the directory of a grace process that was killed, of whose apps none is left, if it holds nothing but what that
// has made, and nobody reads its sockets.
func (d *RuntimeDir) Remove() error { return errors.Join(d.empty(), d.unlock()) }

// HasSockets reports whether a grace process has made sockets for apps in the directory.
func (d RuntimeDir) HasSockets() bool {
	entries, _ := os.ReadDir(d.Path) // where it cannot be read nothing is known of any
	return slices.ContainsFunc(entries, isNotify)
}

func isNotify(e fs.DirEntry) bool {
	return e.Type() == fs.ModeSocket && strings.HasPrefix(e.Name(), notifyPrefix)
}

// empty removes the directory, if it holds nothing but sockets for apps, and the state.
func (d RuntimeDir) empty() error {
	entries, err := os.ReadDir(d.Path)
	if err != nil {
		return err
	}
	foreign := func(e fs.DirEntry) bool {
		return !isNotify(e) && !(e.Type().IsRegular() && strings.HasPrefix(e.Name(), stateName))
	}
	if slices.ContainsFunc(entries, foreign) {
		return errors.New("other files are in it")
	}
	for _, e := range entries {
		if path := filepath.Join(d.Path, e.Name()); e.Type() == fs.ModeSocket && childproc.NotifyIsRead(path) {
			return fmt.Errorf("a process reads %s", path)
		}
	}
	return os.RemoveAll(d.Path)
}

func (d *RuntimeDir) unlock() error {
	if d.Lock == 0 {
		return nil
	}
	fd := d.Lock
	d.Lock = 0
	return syscall.Close(fd)
}

// runtimeParents are the places to try. An app of another user cannot pass
// through a directory that is private to grace's own.
func runtimeParents(otherUser bool) []string {
	parents := []string{"/run", os.TempDir()}
	if otherUser {
		return parents
	}
	var private []string
	for _, variable := range []string{"RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"} {
		if path := os.Getenv(variable); filepath.IsAbs(path) {
			private = append(private, path)
		}
	}
	return append(private, parents...)
}

// openNotify makes a socket for an app in the directory, or in the abstract namespace if it cannot be made there, and
// then says why not: a directory that is full or gone is no reason not to start the app.
func (d RuntimeDir) openNotify(identity *childproc.Identity) (s *childproc.NotifySocket, why, err error) {
	uid, gid := senders(identity)
	if why = d.restore(identity); why == nil {
		if s, why = childproc.OpenNotify(d.Path, uid, gid); why == nil {
			return s, nil, nil
		}
	}
	s, err = childproc.OpenNotify("", uid, gid)
	return s, fmt.Errorf("cannot use the runtime directory %s: %w", d.Path, why), err
}

// renewNotify makes a socket that was removed anew, at its path, unless it was closed.
func (d RuntimeDir) renewNotify(s *childproc.NotifySocket, identity *childproc.Identity) (made bool, err error) {
	if err := d.restore(identity); err != nil {
		return false, fmt.Errorf("cannot use the runtime directory %s: %w", d.Path, err)
	}
	uid, gid := senders(identity)
	return s.Renew(uid, gid)
}

// senders are the user and the group whose processes can send to an app's socket; -1 is grace's own.
func senders(identity *childproc.Identity) (uid, gid int) {
	if identity == nil {
		return -1, -1
	}
	return identity.UID, identity.GID
}

// restore makes the directory again if it has gone, as at a logout, or with a cleaner of /tmp. What is at its path then may
// be another user's.
func (d RuntimeDir) restore(identity *childproc.Identity) error {
	if d.Path == "" || d.own() == nil {
		return nil
	}
	mode := runtimeMode(identity)
	made := os.Mkdir(d.Path, mode)
	if made != nil && !errors.Is(made, fs.ErrExist) {
		return made
	}
	if err := d.own(); err != nil || made != nil {
		return err
	}
	err := os.Chmod(d.Path, mode) // whatever the umask is
	if err == nil {
		err = d.relock()
	}
	if err != nil { // without its lock it would be swept
		return errors.Join(err, os.Remove(d.Path))
	}
	return nil
}

// own fails unless the directory is grace's own, and nobody else can write to it.
func (d RuntimeDir) own() error {
	info, err := os.Lstat(d.Path)
	if err != nil {
		return err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || !ok || int(owner.Uid) != os.Geteuid() || info.Mode().Perm()&0o022 != 0 {
		return errors.New("it is not a directory that belongs to grace's user alone")
	}
	return nil
}

func (d *RuntimeDir) Close() error {
	if d.Path == "" || d.own() != nil {
		return d.unlock()
	}
	if err := errors.Join(os.RemoveAll(d.Path), d.unlock()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("cannot remove the runtime directory: %w", err)
	}
	return nil
}
