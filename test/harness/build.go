package harness

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// programs is the folder that the programs are built in.
var programs string

// Run is for TestMain: what the tests have built is removed after run.
func Run(run func() (status int)) (status int) {
	var err error
	if programs, err = os.MkdirTemp("", "grace-test-"); err == nil {
		err = os.Chmod(programs, 0o711) // others run apps as well
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(programs)
	return run()
}

// GraceBinary is grace with the race detector, and AppBinary the app of test/testdata without. Like the others they are built
// when the first test asks for them; a build that fails ends the tests.
var (
	GraceBinary  = built("grace", "-race", ".")
	AppBinary    = built("app", "./test/testdata/app")
	ServerBinary = built("server", "./test/testdata/server")
	PlainBinary  = built("plain", "./test/testdata/plain")
	// ConversationsBinary serves what takes long and what is not HTTP/1.
	ConversationsBinary = built("conversations", "./test/testdata/conversations")
)

func built(name string, arguments ...string) func() string {
	return sync.OnceValue(func() string {
		if err := BuildOfGrace(arguments...); err != nil {
			panic(err)
		}
		return Program(name)
	})
}

// StaticPrograms is a folder with grace and the app, for a root without libraries.
var StaticPrograms = sync.OnceValue(func() string {
	root, err := moduleRoot()
	if err != nil {
		panic(err)
	}
	cmd := exec.Command("go", "build", "-o", Program("static")+"/", ".", "./test/testdata/app", "./test/testdata/plain")
	cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if err := run(cmd); err != nil {
		panic(err)
	}
	return Program("static")
})

// Program is the path of a program that was built, by the name of its package.
func Program(name string) string { return filepath.Join(programs, name) }

// Build adds what go build makes of these arguments in the test's own folder.
func Build(arguments ...string) error { return buildIn("", arguments...) }

// BuildOfGrace is Build in the folder of grace's module, with the dependencies that grace is released with.
func BuildOfGrace(arguments ...string) error {
	root, err := moduleRoot()
	if err == nil {
		err = lookAtSources(root)
	}
	if err != nil {
		return err
	}
	return buildIn(root, arguments...)
}

// lookAtSources has go test's cache know what the program is built from: it remembers the files of the module that a test has looked
// at, and would give the results of an earlier program otherwise.
func lookAtSources(root string) error {
	return filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err == nil && filepath.Ext(path) == ".go" {
			_, err = os.Stat(path)
		}
		return err
	})
}

func buildIn(dir string, arguments ...string) error {
	cmd := exec.Command("go", append([]string{"build", "-o", programs + "/"}, arguments...)...)
	cmd.Dir = dir
	return run(cmd)
}

func run(cmd *exec.Cmd) error {
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot run %q: %w\n%s", cmd.Args, err, out)
	}
	return nil
}

var moduleRoot = sync.OnceValues(func() (string, error) {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/gracerun/grace").Output()
	if err != nil {
		return "", fmt.Errorf("cannot find the source of grace: %w", err)
	}
	return string(bytes.TrimSpace(dir)), nil
})

// Source is a file or folder of grace's source.
func Source(t *testing.T, path string) string {
	t.Helper()
	root, err := moduleRoot()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(root, path)
}

// Testdata is a file or folder in test/testdata.
func Testdata(t *testing.T, path string) string {
	t.Helper()
	return Source(t, filepath.Join("test/testdata", path))
}
