//go:build linux

// Package supervised runs the examples for their tests as their users do: alone, and under `grace run`.
package supervised

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Binaries is a folder with grace and with examples, all with the race detector.
type Binaries string

// Run builds grace and the packages, which are named as for go build, and removes all after run.
func (b *Binaries) Run(run func() (status int), packages ...string) (status int) {
	dir, err := os.MkdirTemp("", "grace-examples-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	*b = Binaries(dir)
	if err := b.buildAll(packages); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return run()
}

// buildAll has grace built in its own module, with the dependencies that it is released with.
func (b Binaries) buildAll(packages []string) error {
	source, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/gracerun/grace").Output()
	if err != nil {
		return fmt.Errorf("cannot find the source of grace: %w", err)
	}
	if err := b.build(string(bytes.TrimSpace(source)), "."); err != nil {
		return err
	}
	return b.Build(packages...)
}

// Build adds what go build makes of these arguments.
func (b Binaries) Build(arguments ...string) error { return b.build("", arguments...) }

func (b Binaries) build(dir string, arguments ...string) error {
	cmd := exec.Command("go", append([]string{"build", "-race", "-o", string(b)}, arguments...)...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot build %q: %w\n%s", arguments, err, out)
	}
	return nil
}

// Path is that of a program in the folder, named as its package.
func (b Binaries) Path(name string) string { return filepath.Join(string(b), name) }
