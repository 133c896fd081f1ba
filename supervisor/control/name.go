package control

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

const (
	suffix          = ".sock"
	maxName         = 64
	maxDefaultNames = 1000 // grace processes with the same default name
)

// CheckName says what is wrong with a name.
func CheckName(name string) error {
	switch {
	case name == "" || len(name) > maxName:
		return fmt.Errorf("the name %q must have 1 to %d characters", name, maxName)
	case strings.Trim(name[:1], ".-") == "" || strings.ContainsFunc(name, notAllowed):
		return fmt.Errorf("the name %q is not valid: use letters, digits and . _ - @, and do not begin with . or -", name)
	}
	return nil
}

func notAllowed(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("._-@", r)
}

// TakenError is the error for a name that another grace process has.
type TakenError struct {
	Name, Path string
	PID        int // of the other one; 0: unknown
}

func (e *TakenError) Error() string {
	who := "another grace process"
	if e.PID != 0 {
		who = fmt.Sprintf("the grace process with pid %d", e.PID)
	}
	return fmt.Sprintf("cannot use the name %q: %s has it, at %s (choose another --name, or stop that process)", e.Name, who, e.Path)
}

// DefaultName is that of the working directory, as far as it makes a name.
func DefaultName() string {
	dir, err := os.Getwd()
	if err != nil {
		return "grace"
	}
	name := strings.Map(func(r rune) rune {
		if notAllowed(r) {
			return '-'
		}
		return r
	}, filepath.Base(dir))
	name = strings.TrimLeft(name, ".-")
	if name == "" {
		return "grace"
	}
	return name[:min(len(name), maxName-len("-1000"))]
}

// socketDirs are the directories in which grace may make its socket, the best one first.
// The second one is for a $RUNTIME_DIRECTORY that others can write to, as volumes of
// containers are, and the last one for a user without a login session, as after su or in a container.
func socketDirs() []string {
	var dirs []string
	given, _, _ := strings.Cut(os.Getenv("RUNTIME_DIRECTORY"), ":")
	if filepath.IsAbs(given) {
		dirs = append(dirs, given, filepath.Join(given, "grace"))
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		dirs = append(dirs, filepath.Join(dir, "grace"))
	}
	return append(dirs, "/run/grace", filepath.Join(os.TempDir(), usersPrefix+strconv.Itoa(os.Geteuid())))
}

// usersPrefix is followed by the number of the user whose directory it is.
const usersPrefix = "grace-"

// secureDir makes a directory that nobody else can write to, or finds that it is one. A link is none: whoever can make one in
// the directory above would have grace write where it leads.
func secureDir(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("cannot create the directory of the control socket: %w", err)
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("cannot use the directory of the control socket: %w", err)
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.IsDir():
		return fmt.Errorf("cannot create the control socket in %s: not a directory", dir)
	case !ok || int(owner.Uid) != os.Geteuid():
		return fmt.Errorf("cannot create the control socket in %s: the directory belongs to another user", dir)
	case info.Mode().Perm()&0o022 != 0:
		return fmt.Errorf("cannot create the control socket in %s: other users can write to the directory", dir)
	}
	return nil
}
