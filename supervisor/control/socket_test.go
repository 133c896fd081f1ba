package control

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// inPlace has sockets be made in a directory of the test's.
func inPlace(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	t.Setenv("RUNTIME_DIRECTORY", dir+":/somewhere/else")
	t.Setenv("XDG_RUNTIME_DIR", "")
	return dir
}

func open(t *testing.T, name string) *Socket {
	t.Helper()
	s, err := Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Leave() })
	return s
}

func serveOn(t *testing.T, s *Socket, b Backend) *Server {
	t.Helper()
	l, err := s.Listener()
	if err != nil {
		t.Fatal(err)
	}
	server := Serve(l, b)
	t.Cleanup(func() { _ = server.http.Close() })
	return server
}

// A file cannot grow where the disk is full, or the limit of files' sizes is reached.
func TestSocketOnAFullDisk(t *testing.T) {
	inPlace(t)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &limit); err != nil {
		t.Fatal(err)
	}
	signal.Ignore(unix.SIGXFSZ)
	defer signal.Reset(unix.SIGXFSZ)
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Max: limit.Max}); err != nil {
		t.Fatal(err)
	}
	s, err := Open("web")
	if err := errors.Join(err, unix.Setrlimit(unix.RLIMIT_FSIZE, &limit)); err != nil {
		t.Fatal(err)
	}
	serveOn(t, s, &backend{})
	if _, err := client(t, s.Path).Status(t.Context()); err != nil {
		t.Error(err)
	}
	if pid := readPID(s.lockPath()); pid != 0 {
		t.Errorf("the lock has the pid %d", pid)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestSocketServes(t *testing.T) {
	dir := inPlace(t)
	s := open(t, "web")
	if s.Name != "web" || s.Path != filepath.Join(dir, "web.sock") {
		t.Errorf("it is called %s, at %s", s.Name, s.Path)
	}
	server := serveOn(t, s, &backend{})
	if _, err := client(t, s.Path).Status(t.Context()); err != nil {
		t.Error(err)
	}
	if err := errors.Join(server.Close(), s.Close()); err != nil {
		t.Error(err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// Whatever the umask: nobody else ever gets in, and the owner does.
func TestSocketIsPrivate(t *testing.T) {
	parent := t.TempDir()
	t.Setenv("RUNTIME_DIRECTORY", "")
	t.Setenv("XDG_RUNTIME_DIR", parent)
	for _, mask := range []int{0, 0o022, 0o377} {
		before := unix.Umask(mask)
		s, err := Open("web")
		unix.Umask(before)
		if err != nil {
			t.Fatalf("umask %o: %v", mask, err)
		}
		for path, want := range map[string]fs.FileMode{filepath.Join(parent, "grace"): 0o700, s.Path: 0o600} {
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
				t.Errorf("umask %o: %s has mode %v, %v", mask, path, info.Mode(), err)
			}
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// At the moment at which the path appears it has no other mode than later: this holds
// without the chmod that follows.
func TestModeComesFromTheSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	before := unix.Umask(0)
	defer unix.Umask(before)
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := errors.Join(unix.Fchmod(fd, 0o600), unix.Bind(fd, &unix.SockaddrUnix{Name: path})); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

// A process that was killed has its lock until the kernel has closed what it had open, which comes after its memory.
func TestNameOfOneThatIsEnding(t *testing.T) {
	dir := inPlace(t)
	killed := exec.Command("/bin/true")
	if err := killed.Start(); err != nil {
		t.Fatal(err)
	}
	defer killed.Wait() // until then it is a zombie
	for deadline := time.Now().Add(10 * time.Second); !ending(killed.Process.Pid); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not end")
		}
	}
	path := filepath.Join(dir, "web.lock")
	if err := os.WriteFile(path, fmt.Appendln(nil, killed.Process.Pid), 0o600); err != nil {
		t.Fatal(err)
	}
	lock, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err == nil {
		err = unix.Flock(lock, unix.LOCK_EX)
	}
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(3*lockPause, func() { unix.Close(lock) })
	open(t, "web")
}

func TestNameIsTaken(t *testing.T) {
	dir := inPlace(t)
	first := open(t, "web")
	serveOn(t, first, &backend{})
	_, err := Open("web")
	var taken *TakenError
	if !errors.As(err, &taken) || *taken != (TakenError{Name: "web", Path: first.Path, PID: os.Getpid()}) {
		t.Fatal(err)
	}
	if want := fmt.Sprintf(`cannot use the name "web": the grace process with pid %d has it, at %s/web.sock (choose another --name, or stop that process)`, os.Getpid(), dir); err.Error() != want {
		t.Errorf("it says %s", err)
	}
	if _, err := client(t, first.Path).Status(t.Context()); err != nil {
		t.Errorf("the one that has it: %v", err)
	}
}

func TestDefaultNamesAreNumbered(t *testing.T) {
	inPlace(t)
	t.Chdir(t.TempDir())
	if err := os.Mkdir(".my app", 0o700); err != nil {
		t.Fatal(err)
	}
	t.Chdir(".my app")
	for _, want := range []string{"my-app", "my-app-2", "my-app-3"} {
		if s := open(t, ""); s.Name != want {
			t.Errorf("it is called %s, want %s", s.Name, want)
		}
	}
}

// A grace process that was killed leaves path and lock file behind, but no lock.
func TestStaleSocketIsReplaced(t *testing.T) {
	inPlace(t)
	dead := open(t, "web")
	if err := dead.Leave(); err != nil {
		t.Fatal(err)
	}
	s := open(t, "web")
	serveOn(t, s, &backend{})
	if _, err := client(t, s.Path).Status(t.Context()); err != nil {
		t.Error(err)
	}
}

// Of several that want one name at once, one has it, whoever else ends meanwhile.
func TestManyOpenAtOnce(t *testing.T) {
	inPlace(t)
	var having sync.Mutex
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 300 {
				s, err := Open("web")
				if taken := (*TakenError)(nil); errors.As(err, &taken) {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				if !having.TryLock() {
					t.Error("two have it")
					return
				}
				if !(&Found{Path: s.Path}).answers() {
					t.Error("it has it, and is not at its path")
				}
				having.Unlock()
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
}

func TestManyDefaultNamesAtOnce(t *testing.T) {
	inPlace(t)
	var mutex sync.Mutex
	names := map[string]bool{}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			s, err := Open("")
			if err != nil {
				t.Error(err)
				return
			}
			mutex.Lock()
			defer mutex.Unlock()
			if names[s.Name] {
				t.Errorf("two are called %s", s.Name)
			}
			names[s.Name] = true
			t.Cleanup(func() { _ = s.Close() })
		})
	}
	all.Wait()
}

// The successor of a reexec has the name, the queue, and is the one that clients see.
func TestSuccessor(t *testing.T) {
	inPlace(t)
	old := open(t, "web")
	server := serveOn(t, old, &backend{})
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	waiting := connect(t, old.Path)
	l, lock := old.Descriptors()
	s, err := Adopt(old.Path, duplicate(t, l), duplicate(t, lock))
	if err != nil {
		t.Fatal(err)
	}
	if err := old.Leave(); err != nil {
		t.Fatal(err)
	}
	serveOn(t, s, &backend{})
	if _, err := io.WriteString(waiting, "GET /v1/status HTTP/1.0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	checkResponse(t, waiting, 200, "web")
	if _, err := Open("web"); err == nil {
		t.Error("the name is free")
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func duplicate(t *testing.T, fd int) int {
	t.Helper()
	fd, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD, 0)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

func TestDescriptorsAreCloseOnExec(t *testing.T) {
	inPlace(t)
	s := open(t, "web")
	l, lock := s.Descriptors()
	adopted, err := Adopt(s.Path, duplicate(t, l), duplicate(t, lock))
	if err != nil {
		t.Fatal(err)
	}
	defer adopted.Leave()
	for _, fd := range []int{l, lock, adopted.listener, adopted.lock} {
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("descriptor %d: flags %d, %v", fd, flags, err)
		}
	}
}

func TestPathLongerThanAnAddress(t *testing.T) {
	dir := filepath.Join(inPlace(t), strings.Repeat("d", 2*maxSocketPath))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("RUNTIME_DIRECTORY", dir)
	s := open(t, strings.Repeat("n", maxName))
	serveOn(t, s, &backend{})
	if _, err := client(t, s.Path).Status(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestNoPlace(t *testing.T) {
	dir := inPlace(t)
	if err := os.Chmod(dir, 0o770); err != nil {
		t.Fatal(err)
	}
	if s := open(t, "web"); s.Path != filepath.Join(dir, "grace", "web.sock") {
		t.Errorf("in a directory that others can write to it is at %s", s.Path)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ dir, says string }{
		"a file":          {file, "not a directory"},
		"others write":    {dir, "other users can write to the directory"},
		"nothing there":   {filepath.Join(dir, "a", "b"), "cannot create the directory of the control socket"},
		"somebody else's": {othersDir(t), "the directory belongs to another user"},
	} {
		t.Run(name, func(t *testing.T) {
			if s, err := openIn(c.dir, "web"); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, %v", s, err)
			}
		})
	}
}

func othersDir(t *testing.T) string {
	if os.Geteuid() != 0 {
		return "/"
	}
	dir := t.TempDir()
	if err := os.Chown(dir, 65534, -1); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestNames(t *testing.T) {
	inPlace(t)
	for _, name := range []string{"web", "web-2", "grace@web.1", "_", "W", strings.Repeat("n", maxName)} {
		if err := CheckName(name); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"", ".", "..", ".web", "-web", "a/b", "a b", "ä", "a\n", "a\x00", strings.Repeat("n", maxName+1)} {
		if err := CheckName(name); err == nil {
			t.Errorf("%q is a name", name)
		}
		if name == "" {
			continue // Open chooses one itself
		}
		if s, err := Open(name); err == nil {
			t.Errorf("%q was made at %s", name, s.Path)
		}
	}
}

func TestListShowsTheLiving(t *testing.T) {
	dir := inPlace(t)
	serveOn(t, open(t, "web"), &backend{})
	dead := open(t, "dead")
	unix.Close(dead.listener)
	dead.listener = -1
	if err := errors.Join(
		os.Symlink("web.sock", filepath.Join(dir, "link.sock")),
		os.WriteFile(filepath.Join(dir, "file.sock"), nil, 0o600),
		os.Link(filepath.Join(dir, "web.sock"), filepath.Join(dir, "web2.sock"))); err != nil {
		t.Fatal(err)
	}
	var here []Found
	for _, f := range List() {
		if filepath.Dir(f.Path) == dir {
			here = append(here, f)
		}
	}
	if want := (Found{Name: "web", Path: filepath.Join(dir, "web.sock"), UID: os.Geteuid()}); len(here) != 1 || here[0] != want {
		t.Errorf("found %+v", here)
	}
	for name, want := range map[string]string{"web": "", filepath.Join(dir, "web.sock"): "", "dead": `no grace process is named "dead"`, filepath.Join(dir, "dead.sock"): "cannot reach grace at "} {
		if _, err := Find(name); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A user without a login session has no $XDG_RUNTIME_DIR, and cannot write to /run.
func TestUserWithoutSession(t *testing.T) {
	parent := t.TempDir()
	t.Setenv("RUNTIME_DIRECTORY", "")
	t.Setenv("XDG_RUNTIME_DIR", "")
	t.Setenv("TMPDIR", parent)
	dirs := socketDirs()
	s, err := openIn(dirs[len(dirs)-1], "web")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if want := filepath.Join(parent, fmt.Sprintf("grace-%d", os.Geteuid()), "web.sock"); s.Path != want {
		t.Errorf("the socket is at %s, not %s", s.Path, want)
	}
	if info, err := os.Stat(filepath.Dir(s.Path)); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("its directory: %v, %v", info, err)
	}
	if !slices.ContainsFunc(List(), func(f Found) bool { return f.Path == s.Path }) {
		t.Error("grace list does not show it")
	}
}

func TestChoose(t *testing.T) {
	inPlace(t)
	dir := os.Getenv("RUNTIME_DIRECTORY")[:strings.Index(os.Getenv("RUNTIME_DIRECTORY"), ":")]
	own := Found{Name: "web", Path: dir + "/web.sock"}
	other, namesake := Found{Name: "api", Path: "/run/grace/api.sock"}, Found{Name: "web", Path: "/run/user/7/grace/web.sock"}
	third := Found{Name: "api", Path: "/run/user/7/grace/api.sock"}
	for _, c := range []struct {
		name string
		all  []Found
		want Found
		says string
	}{
		{"", nil, Found{}, "no grace process that you may control runs here"},
		{"web", nil, Found{}, `no grace process is named "web", and none that you may control runs here`},
		{"", []Found{other}, other, ""},
		{"", []Found{other, namesake}, Found{}, "several grace processes run here: give the name of one\n  api                  /run/grace/api.sock\n  web"},
		{"", []Found{other, own, namesake}, own, ""},
		{"web", []Found{other, own, namesake}, own, ""},
		{"web", []Found{other, namesake}, namesake, ""},
		{"api", []Found{other, own, third}, other, ""},
		{"", []Found{other, third}, Found{}, "several grace processes run here: give the name of one"},
		{"api", []Found{third, {Name: "api", Path: "/run/user/8/grace/api.sock"}}, Found{}, `several grace processes are named "api": give the path of one`},
		{"shop", []Found{other, own}, Found{}, `no grace process is named "shop"; these run here:`},
	} {
		got, err := choose(c.name, c.all)
		if got != c.want || (err == nil) != (c.says == "") || err != nil && !strings.HasPrefix(err.Error(), c.says) {
			t.Errorf("%q of %v: %v, %v", c.name, c.all, got, err)
		}
	}
}

// A grace process that was killed leaves its files; the kernel has given its lock free.
func TestWhatKilledGracesLeftIsRemoved(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("RUNTIME_DIRECTORY", dir)
	living, err := Open("living")
	if err != nil {
		t.Fatal(err)
	}
	defer living.Close()
	killed, err := Open("killed")
	if err != nil {
		t.Fatal(err)
	}
	if err := killed.Leave(); err != nil {
		t.Fatal(err)
	}
	for _, foreign := range []string{"notes.txt", ".hidden.lock"} {
		if err := os.WriteFile(filepath.Join(dir, foreign), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	another, err := Open("another")
	if err != nil {
		t.Fatal(err)
	}
	defer another.Close()
	var left []string
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		left = append(left, e.Name())
	}
	want := []string{".hidden.lock", "another.lock", "another.sock", "living.lock", "living.sock", "notes.txt"}
	if !slices.Equal(left, want) {
		t.Errorf("there are %q, not %q", left, want)
	}
	if !living.InPlace() {
		t.Error("the living one has lost its socket")
	}
}

// Whoever can write above the directory could have root write into another one.
func TestPlantedLinkIsNotFollowed(t *testing.T) {
	parent, foreign := t.TempDir(), t.TempDir()
	if err := errors.Join(os.Chmod(parent, 0o777), os.Symlink(foreign, filepath.Join(parent, "grace"))); err != nil {
		t.Fatal(err)
	}
	lock := filepath.Join(foreign, "web.lock")
	if err := os.WriteFile(lock, []byte("foreign"), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := openIn(filepath.Join(parent, "grace"), "web"); err == nil {
		s.Close()
		t.Error("it was followed")
	}
	if text, err := os.ReadFile(lock); err != nil || string(text) != "foreign" {
		t.Errorf("the foreign lock has %q, %v", text, err)
	}
}
