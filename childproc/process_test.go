package childproc

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func init() {
	roles["self"] = describeSelf
}

// self is what a process finds of what it was started with.
type self struct {
	PID, PPID, PGID, SID int
	UID, GID, Umask      int
	Groups               []int
	Args, Env            []string
	Dir                  string
	FDs                  []string // 0 to 31: what each leads to
	NoFile               unix.Rlimit
	Blocked, Ignored     string
}

func describeSelf() {
	umask := unix.Umask(0)
	s := self{PID: os.Getpid(), PPID: os.Getppid(), UID: os.Getuid(), GID: os.Getgid(), Umask: umask, Args: os.Args, Env: os.Environ()}
	s.PGID = unix.Getpgrp()
	s.SID, _ = unix.Getsid(0)
	s.Groups, _ = os.Getgroups()
	s.Dir, _ = os.Getwd()
	for fd := range 32 {
		if link, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd)); err == nil && !strings.Contains(link, "anon_inode") {
			s.FDs = append(s.FDs, fmt.Sprintf("%d=%s", fd, link))
		}
	}
	if err := json.NewEncoder(os.Stdout).Encode(s); err != nil {
		panic(err)
	}
}

func newReaper(t *testing.T) *Reaper {
	t.Helper()
	f, err := NewReaper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if len(f.own) > 0 {
			t.Errorf("processes were not reaped: %v", f.own)
		}
	})
	return f
}

func shell(script string) Spec {
	return Spec{Path: "/bin/sh", Args: []string{"sh", "-c", script}, Env: []string{"PATH=/bin:/usr/bin", "A=b"}, Stdin: -1, Stdout: 1, Stderr: 2, Umask: -1}
}

func output(t *testing.T, spec Spec) string {
	t.Helper()
	out, exit, err := newReaper(t).Output(t.Context(), spec, 1<<16)
	if err != nil || exit.Status() != 0 {
		t.Fatalf("%s: %v, %v: %s", spec.Path, exit, err, out)
	}
	return string(out)
}

func finish(t *testing.T, p *Process) Exit {
	t.Helper()
	exit, err := p.Wait()
	if err := errors.Join(err, p.WaitRest(nil), p.Reap()); err != nil {
		t.Fatal(err)
	}
	return exit
}

func TestExits(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for name, test := range map[string]struct {
		spec   Spec
		status int
		text   string
	}{
		"zero":           {shell("exit 0"), 0, "exit status 0"},
		"three":          {shell("exit 3"), 3, "exit status 3"},
		"signal":         {shell("kill -TERM $$"), 143, "signal: terminated"},
		"core":           {shell("ulimit -c 0; kill -ABRT $$"), 134, "signal: aborted"},
		"not there":      {Spec{Path: dir + "/none", Args: []string{"none"}}, 127, "exec: no such file or directory (check the path"},
		"not executable": {Spec{Path: write("text", "hello", 0o644), Args: []string{"text"}}, 126, "exec: permission denied (check that it is an executable"},
		"not a program":  {Spec{Path: write("noise", "\x7fELFnoise", 0o755), Args: []string{"noise"}}, 126, "exec: exec format error"},
		"no interpreter": {Spec{Path: write("script", "#!/no/such\n", 0o755), Args: []string{"script"}}, 127, "interpreter"},
	} {
		t.Run(name, func(t *testing.T) {
			test.spec.Stdin, test.spec.Stdout, test.spec.Stderr, test.spec.Umask = -1, 1, 2, -1
			p, err := newReaper(t).Start(test.spec)
			if err != nil {
				t.Fatal(err)
			}
			exit := finish(t, p)
			if exit.Status() != test.status || !strings.Contains(exit.String(), test.text) {
				t.Errorf("status %d, %q", exit.Status(), exit)
			}
		})
	}
}

func TestForkFails(t *testing.T) {
	spec := shell("exit 0")
	spec.Dir = "/no/such/directory"
	_, err := newReaper(t).Start(spec)
	failed := (*StartError)(nil)
	if !errors.As(err, &failed) || failed.Status() != 1 || !errors.Is(err, syscall.ENOENT) {
		t.Errorf("got %v", err)
	}
}

// bare is what the same program finds when it is started without a shim.
func bare(t *testing.T) self {
	t.Helper()
	c := exec.Command("/proc/self/exe")
	c.Env = []string{roleVariable + "=self"}
	out, err := c.Output()
	if err != nil {
		t.Fatal(err)
	}
	return decode(t, out)
}

// links drops the numbers of descriptors.
func links(fds []string) []string {
	var links []string
	for _, fd := range fds {
		_, link, _ := strings.Cut(fd, "=")
		links = append(links, link)
	}
	slices.Sort(links)
	return links
}

func decode(t *testing.T, out []byte) self {
	t.Helper()
	var s self
	if err := json.Unmarshal(out, &s); err != nil {
		t.Fatalf("%s: %v", out, err)
	}
	return s
}

func startedSelf(t *testing.T, change func(*Spec)) self {
	t.Helper()
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	spec := Spec{Path: executable, Args: []string{"app", "x y"}, Env: []string{roleVariable + "=self", "SECRET=1"}, Stdin: -1, Umask: -1}
	if change != nil {
		change(&spec)
	}
	return decode(t, []byte(output(t, spec)))
}

func TestAppFindsWhatItWasPromised(t *testing.T) {
	file, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	dir := t.TempDir()
	got := startedSelf(t, func(s *Spec) {
		s.Files = []int{int(file.Fd()), int(file.Fd())}
		s.PIDVars = []string{"LISTEN_PID"}
		s.Umask = 0o027
		s.Dir = dir
	})
	if got.PGID != got.PID || got.PPID != os.Getpid() {
		t.Errorf("pid %d, group %d, parent %d", got.PID, got.PGID, got.PPID)
	}
	if !slices.Equal(got.Args, []string{"app", "x y"}) || got.Umask != 0o027 || got.Dir != dir {
		t.Errorf("args %q, umask %o, directory %s", got.Args, got.Umask, got.Dir)
	}
	if want := []string{roleVariable + "=self", "SECRET=1", "LISTEN_PID=" + strconv.Itoa(got.PID)}; !slices.Equal(got.Env, want) {
		t.Errorf("environment %q", got.Env)
	}
	if got.FDs[0] != "0=/dev/null" || got.FDs[3] != "3="+file.Name() || got.FDs[4] != "4="+file.Name() {
		t.Errorf("descriptors %q", got.FDs)
	}
	// The rest is what the test itself inherited, and what Go's runtime opens.
	if plain := bare(t); !slices.Equal(links(got.FDs[5:]), links(plain.FDs[3:])) {
		t.Errorf("descriptors %q, and plainly %q", got.FDs, plain.FDs)
	}
}

// The connection to the shim has no room for all of it before somebody reads.
func TestLargeEnvironment(t *testing.T) {
	s := shell(`echo ${#LARGE9}`)
	for n := range 10 {
		s.Env = append(s.Env, "LARGE"+strconv.Itoa(n)+"="+strings.Repeat("x", 100_000))
	}
	if got := output(t, s); got != "100000\n" {
		t.Errorf("a variable has the length %s", got)
	}
}

func TestAppHasPlainSignalsAndLimits(t *testing.T) {
	text := output(t, shell("grep -E 'Sig(Blk|Ign|Cgt)' /proc/self/status; ulimit -n"))
	want, err := exec.Command("env", "--default-signal", "/bin/sh", "-c", "grep -E 'Sig(Blk|Ign|Cgt)' /proc/self/status; ulimit -n").Output()
	if err != nil {
		t.Fatal(err)
	}
	if text != string(want) {
		t.Errorf("by grace:\n%splainly:\n%s", text, want)
	}
}

func TestIdentity(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("changing the user needs root")
	}
	nobody, err := user.Lookup("nobody")
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.Atoi(nobody.Uid)
	spec := shell("id -u; id -g; id -G; cat /proc/self/status | grep CapEff")
	spec.Identity = &Identity{UID: uid, GID: 12345, Groups: []int{12345, 4242}}
	if got, want := output(t, spec), fmt.Sprintf("%d\n12345\n12345 4242\nCapEff:\t0000000000000000\n", uid); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestIdentityThatIsNotAllowed(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("changing the user needs root")
	}
	spec := shell("exit 0")
	spec.Identity = &Identity{UID: 65534, GID: 65534, Groups: []int{-1}}
	p, err := newReaper(t).Start(spec)
	if err != nil {
		t.Fatal(err)
	}
	exit := finish(t, p)
	if exit.Status() != 1 || !strings.Contains(exit.String(), "setgroups") {
		t.Errorf("got %v", exit)
	}
}

func TestSignalGoesToTheProcessAlone(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	spec := shell(`trap 'echo told; exit 0' TERM; sleep 1000 & echo up; wait`)
	spec.Stdout = int(w.Fd())
	p, err := newReaper(t).Start(spec)
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(r)
	expect(t, lines, "up")
	if err := p.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	expect(t, lines, "told")
	if exit, err := p.Wait(); err != nil || exit.Status() != 0 {
		t.Fatalf("%v, %v", exit, err)
	}
	members, err := Group(p.PID)
	if err != nil || len(members) != 1 {
		t.Fatalf("the group has %v, %v", members, err)
	}
	if err := p.SignalGroup(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(p.WaitRest(nil), p.Reap()); err != nil {
		t.Fatal(err)
	}
}

func expect(t *testing.T, lines *bufio.Scanner, want string) {
	t.Helper()
	if !lines.Scan() || lines.Text() != want {
		t.Fatalf("got %q, %v; want %q", lines.Text(), lines.Err(), want)
	}
}

func TestSignalAfterTheEndIsNoError(t *testing.T) {
	p, err := newReaper(t).Start(shell("exit 0"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Wait(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(p.Signal(syscall.SIGTERM), p.SignalGroup(syscall.SIGTERM), p.WaitRest(nil), p.Reap()); err != nil {
		t.Error(err)
	}
}

func TestOutputKeepsTheEndAndHasADeadline(t *testing.T) {
	f := newReaper(t)
	out, exit, err := f.Output(t.Context(), shell("seq 1 100000; echo end >&2; exit 4"), 8)
	if err != nil || exit.Status() != 4 || string(out) != "100\nend\n"[len("100\nend\n")-8:] && !bytes.HasSuffix(out, []byte("end\n")) || len(out) > 8 {
		t.Errorf("%q, %v, %v", out, exit, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, exit, err := f.Output(ctx, shell("exec sleep 1000"), 8); !errors.Is(err, context.Canceled) || exit.Signal != syscall.SIGKILL {
		t.Errorf("%v, %v", exit, err)
	}
}

func TestOutputDoesNotWaitForWhoKeepsIt(t *testing.T) {
	out, exit, err := newReaper(t).Output(t.Context(), shell("setsid sleep 5 & echo here"), 100)
	if err != nil || exit.Status() != 0 || string(out) != "here\n" {
		t.Errorf("%q, %v, %v", out, exit, err)
	}
}

func TestOrphansAreReapedAndOwnChildrenAreNot(t *testing.T) {
	f := newReaper(t)
	incoming := make(chan os.Signal, 16)
	signal.Notify(incoming, syscall.SIGCHLD)
	defer signal.Stop(incoming)
	p, err := f.Start(shell("(setsid sh -c 'exit 5' &); exit 0"))
	if err != nil {
		t.Fatal(err)
	}
	reaped := 0
	timeout := time.After(deadline)
	for reaped == 0 {
		select {
		case <-incoming:
		case <-timeout:
			t.Fatal("the orphan was not reaped")
		}
		n, err := f.ReapOrphans()
		if err != nil {
			t.Fatal(err)
		}
		reaped += n
	}
	if exit := finish(t, p); exit.Status() != 0 || exit.Unknown {
		t.Errorf("own child: %v", exit)
	}
}

func TestAdoptedProcess(t *testing.T) {
	f := newReaper(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	spec := shell("setsid sh -c 'echo $$; read x; exit 6' <&3 & exit 0")
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	spec.Stdout, spec.Files = int(w.Fd()), []int{int(in.Fd())}
	launcher, err := f.Start(spec)
	w.Close()
	in.Close()
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(r)
	if !lines.Scan() {
		t.Fatal("no pid came")
	}
	pid, err := strconv.Atoi(lines.Text())
	if err != nil {
		t.Fatal(err)
	}
	p, err := f.Adopt(pid)
	if err != nil {
		t.Fatal(err)
	}
	if exit := finish(t, launcher); exit.Status() != 0 {
		t.Errorf("launcher: %v", exit)
	}
	out.Close()
	if exit := finish(t, p); exit.Code != 6 {
		t.Errorf("adopted: %v", exit)
	}
	if _, err := f.Adopt(pid); err == nil {
		t.Error("a process that is gone was adopted")
	}
}

// The shared description must stay non-blocking: os/exec and File.Fd would switch it for every generation.
func TestStartLeavesDescriptorsNonBlocking(t *testing.T) {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	defer closeAll(pipe[:])
	spec := shell("exit 0")
	spec.Files = pipe[:]
	output(t, spec)
	for _, fd := range pipe {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		if err != nil || flags&unix.O_NONBLOCK == 0 {
			t.Errorf("descriptor %d: flags %x, %v", fd, flags, err)
		}
	}
}

func TestNothingLeaks(t *testing.T) {
	f := newReaper(t)
	before := descriptors(t)
	for i := range 50 {
		script := "exit " + strconv.Itoa(i%3)
		p, err := f.Start(shell(script))
		if err != nil {
			t.Fatal(err)
		}
		finish(t, p)
	}
	checkNoMoreDescriptors(t, before)
}
