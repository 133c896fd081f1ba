package childproc

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// keepFile opens an executable as a generation keeps it.
func keepFile(t *testing.T, path string) int {
	t.Helper()
	fd, err := OpenExecutable(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// copied is a program at a path of its own.
func copied(t *testing.T, from, name string) string {
	t.Helper()
	text, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, text, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// replace puts a program at a path that says so and fails.
func replace(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("#!/bin/sh\necho replaced\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
}

func TestProgramRunsThoughItsPathWasReplaced(t *testing.T) {
	path := copied(t, "/bin/sh", "app")
	spec := shell(`readlink /proc/$$/exe; cat /proc/$$/comm; tr '\0' ' ' </proc/$$/cmdline`)
	spec.Path, spec.Program = path, keepFile(t, path)
	replace(t, path)
	said := strings.Split(output(t, spec), "\n")
	if said[0] != path+" (deleted)" || !strings.HasPrefix(said[2], "sh -c ") {
		t.Errorf("it is %q", said)
	}
	if named := said[1] == "app"; named != (kernel(t) >= 614) {
		t.Errorf("its name is %q on Linux %d", said[1], kernel(t))
	}
}

// kernel is 614 for Linux 6.14.
func kernel(t *testing.T) int {
	t.Helper()
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	version := strings.FieldsFunc(unix.ByteSliceToString(u.Release[:]), func(r rune) bool { return r < '0' || r > '9' })
	major, err1 := strconv.Atoi(version[0])
	minor, err2 := strconv.Atoi(version[1])
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	return major*100 + minor
}

// TestProgramFindsWhatAnyOtherDoes: signals, limits and descriptors are those of a start by path.
func TestProgramFindsWhatAnyOtherDoes(t *testing.T) {
	const script = "grep -E 'Sig(Blk|Ign|Cgt)' /proc/self/status; ulimit -n; ls /proc/$$/fd"
	want := output(t, shell(script))
	spec := shell(script)
	spec.Path = copied(t, "/bin/sh", "app")
	spec.Program = keepFile(t, spec.Path)
	replace(t, spec.Path)
	if got := output(t, spec); got != want {
		t.Errorf("by its path it finds\n%s\nby its descriptor\n%s", want, got)
	}
}

// TestProgramFindsItsLibraries: the dynamic loader takes $ORIGIN from where the file was.
func TestProgramFindsItsLibraries(t *testing.T) {
	if _, err := exec.LookPath("gcc"); err != nil {
		t.Skip("gcc is not installed")
	}
	dir := t.TempDir()
	for name, text := range map[string]string{
		"lib.c": "const char *word(void) { return \"found\"; }\n",
		"app.c": "#include <stdio.h>\nconst char *word(void);\nint main(void) { puts(word()); return 0; }\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range []string{"-shared -o libword.so lib.c", "-o app app.c -L. -lword -Wl,-rpath,$ORIGIN"} {
		c := exec.Command("gcc", strings.Fields(args)...)
		c.Dir = dir
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("gcc %s: %v: %s", args, err, out)
		}
	}
	path := filepath.Join(dir, "app")
	spec := shell("")
	spec.Path, spec.Args, spec.Program = path, []string{"app"}, keepFile(t, path)
	replace(t, path)
	if said := output(t, spec); said != "found\n" {
		t.Errorf("it says %q", said)
	}
}
