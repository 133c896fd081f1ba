package harness

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// The programs under test: grace with the race detector, and the app without. Run and BuildApp set them.
var GraceBinary, AppBinary string

// programs is the folder that the programs are built in.
var programs string

// Run is for TestMain: it builds grace and what else a package tests, and removes it all after run.
func Run(run func() (status int), builds ...func() error) (status int) {
	if err := build(builds); err != nil {
		fmt.Fprintln(os.Stderr, err)
		status = 1
	} else {
		status = run()
	}
	os.RemoveAll(programs)
	return status
}

func build(builds []func() error) (err error) {
	if programs, err = os.MkdirTemp("", "grace-test-"); err != nil {
		return err
	}
	GraceBinary = Program("grace")
	err = errors.Join(os.Chmod(programs, 0o711), BuildOfGrace("-race", ".")) // others run apps as well
	for _, build := range builds {
		err = errors.Join(err, build())
	}
	return err
}

// BuildApp builds the app of test/testdata.
func BuildApp() error {
	AppBinary = Program("app")
	return BuildOfGrace("./test/testdata/app")
}

// Program is the path of a program that was built, by the name of its package.
func Program(name string) string { return filepath.Join(programs, name) }

// Build adds what go build makes of these arguments in the test's own folder.
func Build(arguments ...string) error { return buildIn("", arguments...) }

// BuildOfGrace is Build in the folder of grace's module, with the dependencies that grace is released with.
func BuildOfGrace(arguments ...string) error {
	root, err := moduleRoot()
	if err != nil {
		return err
	}
	return buildIn(root, arguments...)
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

var buildServer = sync.OnceValue(func() error { return BuildOfGrace("./test/testdata/server") })

// ServerBinary is the program of test/testdata/server.
func ServerBinary(t *testing.T) string {
	t.Helper()
	if err := buildServer(); err != nil {
		t.Fatal(err)
	}
	return Program("server")
}

var buildStatic = sync.OnceValue(func() error {
	root, err := moduleRoot()
	if err != nil {
		return err
	}
	cmd := exec.Command("go", "build", "-o", Program("static")+"/", ".", "./test/testdata/app")
	cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	return run(cmd)
})

// StaticPrograms is a folder with grace and the app, for a root without libraries.
func StaticPrograms(t *testing.T) string {
	t.Helper()
	if err := buildStatic(); err != nil {
		t.Fatal(err)
	}
	return Program("static")
}
