package reexec

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A test binary with this variable is a grace process; its value says what kind of successor it has.
const roleVariable = "GRACE_TEST_SUCCESSOR"

func TestMain(m *testing.M) {
	if kind := os.Getenv(roleVariable); kind != "" {
		if err := reign(kind); err != nil {
			fmt.Println(err)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

const manyFiles = 600 // more than two messages take

var longDocument = []byte(strings.Repeat("all that there is to know; ", 50_000))

// reign is a grace's life: it takes over if there is somebody before it, and leaves if not.
func reign(kind string) error {
	s, before, err := Find()
	if err != nil {
		return err
	}
	if before != nil {
		return takeOver(kind, before)
	}
	_, mode, _ := strings.Cut(kind, " by ")
	files := make([]int, manyFiles)
	for i := range files {
		if files[i], err = unix.MemfdCreate(fmt.Sprint(i), unix.MFD_CLOEXEC); err != nil {
			return err
		}
		if _, err := unix.Write(files[i], fmt.Append(nil, files[i])); err != nil {
			return err
		}
	}
	fmt.Println("old grace", os.Getpid())
	return leave(s, mode, Snapshot{longDocument, files})
}

func leave(s *Transport, mode string, e Snapshot) error {
	if mode == "another" {
		pid, err := s.ByAnother(e, func() bool { return true })
		if err == nil {
			fmt.Println("left to", pid)
		}
		return err
	}
	if err := s.Try(e); err != nil {
		return err
	}
	if mode == "trial" {
		fmt.Println("tried")
		return nil
	}
	return s.InPlace(e)
}

func takeOver(kind string, before *Predecessor) error {
	kind, _, _ = strings.Cut(kind, " by ")
	switch kind {
	case "refusing":
		before.Refuse(errors.New("it does not like it"))
		os.Exit(1)
	case "crashing":
		os.Exit(3)
	}
	if err := check(before); err != nil {
		before.Refuse(err)
		os.Exit(1)
	}
	if err := before.Accept(); err != nil || before.Trial() {
		return err
	}
	fmt.Println("new grace", os.Getpid(), before.Same(), os.Getenv(Variable)+os.Getenv(tableflips))
	return nil
}

func check(p *Predecessor) error {
	if string(p.Document) != string(longDocument) || len(p.Files) != manyFiles {
		return fmt.Errorf("%d bytes and %d descriptors came", len(p.Document), len(p.Files))
	}
	for there, here := range p.Files {
		text := make([]byte, 16)
		n, err := unix.Pread(here, text, 0)
		if string(text[:max(n, 0)]) != fmt.Sprint(there) || err != nil {
			return fmt.Errorf("descriptor %d came as %q, %v", there, text, err)
		}
		if flags, err := unix.FcntlInt(uintptr(here), unix.F_GETFD, 0); flags&unix.FD_CLOEXEC == 0 || err != nil {
			return fmt.Errorf("descriptor %d is not close-on-exec: %v", here, err)
		}
	}
	return nil
}

// succeed runs a grace process, and gives what it and its successor say.
func succeed(t *testing.T, kind string, env ...string) []string {
	t.Helper()
	own, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(own)
	c.Env = append(append(os.Environ(), roleVariable+"="+kind, "GORACE=atexit_sleep_ms=0"), env...)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c.Stdout, c.Stderr = w, os.Stderr
	err = c.Start()
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	var said []string
	for lines := bufio.NewScanner(r); lines.Scan(); {
		said = append(said, lines.Text())
	}
	if err := c.Wait(); err != nil {
		t.Errorf("%v, after %q", err, said)
	}
	return said
}

func TestSuccessorInAnotherProcess(t *testing.T) {
	said := succeed(t, "good by another")
	var old, left, new int
	if _, err := fmt.Sscanf(strings.Join(said, "\n"), "old grace %d\nleft to %d\nnew grace %d false ", &old, &left, &new); err != nil || left != new || old == new {
		t.Errorf("%q, %v", said, err)
	}
}

func TestSuccessorInTheSameProcess(t *testing.T) {
	said := succeed(t, "good by itself")
	var old, new int
	if _, err := fmt.Sscanf(strings.Join(said, "\n"), "old grace %d\nnew grace %d true ", &old, &new); err != nil || old != new {
		t.Errorf("%q, %v", said, err)
	}
}

func TestTrialLeavesNothing(t *testing.T) {
	if said := succeed(t, "good by trial"); len(said) != 2 || said[1] != "tried" {
		t.Errorf("%q", said)
	}
}

func TestBadSuccessorIsTold(t *testing.T) {
	for kind, why := range map[string]string{"refusing": "it does not like it", "crashing": "status 3"} {
		for _, mode := range []string{"another", "trial"} {
			said := succeed(t, kind+" by "+mode)
			if len(said) != 2 || !strings.Contains(said[1], why) {
				t.Errorf("%s by %s: %q", kind, mode, said)
			}
		}
	}
}

// Variables that have come from anywhere else make nobody a successor, and reach nobody.
func TestLeakedVariablesAreIgnored(t *testing.T) {
	for _, leaked := range []string{"another 1", "launch 1", "same 0", "try 77", "same", "nonsense"} {
		said := succeed(t, "good by itself", Variable+"="+leaked, tableflips+"=yes")
		if len(said) != 2 || !strings.HasPrefix(said[0], "old grace") || !strings.HasSuffix(said[1], " true ") {
			t.Errorf("%s: %q", leaked, said)
		}
	}
}

func TestProgramIsWhatWasWritten(t *testing.T) {
	own, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	link := filepath.Join(dir, "link")
	if err := os.Symlink(own, link); err != nil {
		t.Fatal(err)
	}
	written := os.Args[0]
	defer func() { os.Args[0] = written }()
	for name, want := range map[string]string{own: own, link: link, "/bin/sh": own, "no-such-program": own} {
		os.Args[0] = name
		if got := Program(); got != want {
			t.Errorf("started as %s, the program is %s, not %s", name, got, want)
		}
	}
	t.Setenv("PATH", dir)
	os.Args[0] = "link"
	if got := Program(); got != link {
		t.Errorf("found in PATH, it is %s", got)
	}
}

func TestUnreadEstateIsLetGo(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	l, err := openSocketPair()
	if err != nil {
		t.Fatal(err)
	}
	fds := []int{int(w.Fd())}
	if err := l.leave(Snapshot{[]byte("hello"), slices.Clone(fds)}); err != nil {
		t.Fatal(err)
	}
	kept, err := unix.Dup(l.theirs) // as a program that failed may have left one
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(kept)
	l.close()
	w.Close()
	if n, err := r.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("the pipe is open still: %d, %v", n, err)
	}
}
