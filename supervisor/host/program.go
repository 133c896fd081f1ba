package host

import (
	"bytes"
	"debug/elf"
	"fmt"
	"os"
	"time"

	"github.com/gracerun/grace/childproc"
	"github.com/gracerun/grace/handoff/socket"
	"github.com/gracerun/grace/supervisor/machine"
	"golang.org/x/sys/unix"
)

// Program is the file that a generation was started from, by a descriptor that needs no right to read (O_PATH): a crash
// restart or a rollback executes it although another file has taken its path. It belongs to the generation's launch,
// and to apps once that has ended. 0 stands for none: a script is opened by its interpreter, by a path.
type Program int

// openProgram opens what is at a path, and says what it is.
func openProgram(path string) (Program, machine.File, error) {
	fd, err := childproc.OpenExecutable(path)
	if err != nil {
		return 0, machine.File{}, err
	}
	p := Program(fd)
	f, err := identify(p.path())
	if err != nil || !p.binary() {
		p.Close()
		return 0, f, err
	}
	return p, f, nil
}

// path leads to the file itself, wherever it was moved.
func (p Program) path() string { return fmt.Sprintf("/proc/self/fd/%d", p) }

// binary takes a file that cannot be read for one: a script has to be read.
func (p Program) binary() bool {
	f, err := os.Open(p.path())
	if err != nil {
		return true
	}
	defer f.Close()
	magic := make([]byte, len(elf.ELFMAG))
	_, err = f.Read(magic)
	return err == nil && bytes.Equal(magic, []byte(elf.ELFMAG))
}

// duplicate gives none for none.
func (p Program) duplicate() (Program, error) {
	if p == 0 {
		return 0, nil
	}
	fd, err := unix.FcntlInt(uintptr(p), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return 0, fmt.Errorf("cannot duplicate the descriptor of an executable: %w", err)
	}
	return Program(fd), nil
}

func (p Program) Close() {
	if p != 0 {
		unix.Close(int(p)) // which cannot fail: nothing is written through it
	}
}

func identify(path string) (machine.File, error) {
	var s unix.Stat_t
	if err := unix.Stat(path, &s); err != nil {
		return machine.File{}, err
	}
	return machine.File{Device: uint64(s.Dev), Inode: s.Ino, Size: s.Size, Modified: time.Unix(s.Mtim.Unix())}, nil
}

// is reports whether it is the file that ran, and was not written over.
func (p Program) is(f machine.File) bool {
	if p == 0 {
		return false
	}
	now, err := identify(p.path())
	return err == nil && f.Same(now)
}

// locate gives what a start executes: the path as long as it leads to the file that the generation was started from,
// else that file itself. Where it is not the path that decides, or another file is started, departure says why.
func (l *LaunchSpec) locate() (path string, p Program, departure string) {
	path = l.executable()
	now, err := identify(path)
	if err == nil && l.File.Same(now) {
		return path, 0, ""
	}
	p = l.Program
	if !p.is(l.File) {
		p = 0
	}
	switch {
	case err == nil:
		return path, p, fmt.Sprintf("%s is another file now (%s)", path, difference(l.File, now))
	case p != 0:
		return path, p, fmt.Sprintf("cannot find %s any more: %v", path, err)
	}
	return path, 0, "" // the start will tell
}

// locate tells of a start that does not execute what is at the path, or executes another file than before.
func (a *Host) locate(generation int, l *LaunchSpec) (string, int) {
	path, p, departure := l.locate()
	switch {
	case departure == "":
	case p != 0:
		a.Post(machine.Noticed{Text: fmt.Sprintf("starting generation %d from the executable that grace has kept", generation),
			Why: departure + " (run grace upgrade once the next version is there)"})
	default:
		a.Post(machine.Noticed{Text: fmt.Sprintf("starting generation %d from a changed file, which no upgrade has checked", generation),
			Why: departure + "; grace cannot keep a script, or a file that was overwritten (run grace upgrade to have the new file checked; give each release a path of its own)"})
	}
	return path, int(p)
}

// Discard closes what was kept of a generation that has ended.
func (a *Host) Discard(d machine.Discard) {
	a.Programs[d.Generation].Close()
	delete(a.Programs, d.Generation)
}

// kept duplicates the executable of a generation that may have ended, for another one.
func (a *Host) kept(generation int) (Program, error) {
	if p, ok := a.Launches[generation]; ok && p.launch() != nil {
		return p.Launch.Program.duplicate()
	}
	return a.Programs[generation].duplicate()
}

// allPrograms are the descriptors by generation, for a successor.
func (a *Host) allPrograms() map[int]int {
	all := map[int]int{}
	for generation, p := range a.Programs {
		if p != 0 {
			all[generation] = int(p)
		}
	}
	for generation, p := range a.Launches {
		if p.of == 0 && p.launch() != nil && p.Launch.Program != 0 {
			all[generation] = int(p.Launch.Program)
		}
	}
	return all
}

func (a *Host) takeOverPrograms(programs map[int]int, files socket.Descriptors) error {
	for generation, there := range programs {
		here, err := files.Take(there)
		if err != nil {
			return err
		}
		if p, ok := a.Launches[generation]; ok {
			p.Launch.Program = Program(here)
		} else {
			a.Programs[generation] = Program(here)
		}
	}
	return nil
}

// possible gives the reason why a generation cannot be started again as it was. p is its executable, if that was kept.
func possible(r machine.LaunchSpec, p Program) error {
	if info, err := os.Stat(r.Dir); err != nil || !info.IsDir() {
		return fmt.Errorf("cannot go back to directory %s: it is gone (create it again, then upgrade)", r.Dir)
	}
	if p.is(r.File) {
		return nil
	}
	now, err := identify(r.Executable)
	if err != nil {
		return fmt.Errorf("cannot go back to %s: %w (install it again, then upgrade)", r.Executable, err)
	}
	if !r.File.Same(now) {
		return fmt.Errorf("cannot go back to %s: the file there is not the one that ran (%s; install the old one again, then upgrade)", r.Executable, difference(r.File, now))
	}
	return nil
}

// difference tells two files apart for people.
func difference(was, now machine.File) string {
	if was.Device != now.Device || was.Inode != now.Inode {
		return fmt.Sprintf("inode %d, was %d", now.Inode, was.Inode)
	}
	return "changed at " + now.Modified.Format(time.DateTime)
}
