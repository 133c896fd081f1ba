// Packaging makes what a release consists of: archives, packages for Debian and Fedora, an image, a bill of materials for each
// program, and checksums. scripts/release runs it.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

// architectures are those that grace's own system call stubs exist for.
var architectures = []string{"amd64", "arm64"}

func main() {
	sources := flag.String("sources", "../..", "the top folder of grace's sources")
	out := flag.String("out", "", "an empty folder, or one that does not exist, for what is made")
	changed := flag.Bool("allow-changes", false, "package sources with uncommitted changes, and say so in the version")
	flag.Parse()
	if *out == "" || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	if err := release(*sources, *out, *changed); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

func release(dir, out string, allowChanges bool) error {
	s, err := openSources(dir)
	if err != nil {
		return err
	}
	if s.changed && !allowChanges {
		return fmt.Errorf("%s has uncommitted changes: commit them, or build with --allow-changes", dir)
	}
	if err := makeEmpty(out); err != nil {
		return err
	}
	dir, err = os.MkdirTemp("", "grace-release-")
	if err != nil {
		return fmt.Errorf("cannot build grace: %w", err)
	}
	defer os.RemoveAll(dir)
	programs, err := s.build(dir, architectures)
	if err != nil {
		return err
	}
	if programs[0].version() == unversioned && !allowChanges {
		return fmt.Errorf("cannot tell the version of %s: build in a clone of the repository, not in a worktree or a copy", s.dir)
	}
	return s.pack(programs, out)
}

// pack makes everything of programs that were built.
func (s sources) pack(programs []program, out string) error {
	for _, p := range programs {
		if err := p.pack(s, out); err != nil {
			return err
		}
	}
	if err := writeImage(filepath.Join(out, "grace-"+programs[0].version()+"-oci.tar"), s, programs); err != nil {
		return err
	}
	return writeSums(out)
}

// pack makes what is for one architecture.
func (p program) pack(s sources, out string) error {
	files, err := s.install(p)
	if err != nil {
		return err
	}
	name := filepath.Join(out, "grace-"+p.version()+"-linux-"+p.architecture)
	if err := writeArchive(name+".tar.gz", files, s.committed); err != nil {
		return err
	}
	for _, format := range []string{"deb", "rpm"} {
		if err := writePackage(out, format, p, files, s.committed); err != nil {
			return err
		}
	}
	return writeBill(name+".cdx.json", p, s.committed)
}

// makeEmpty refuses a folder with files: checksums would be made of them too.
func makeEmpty(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("cannot make the folder for the release: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("cannot make the folder for the release: %w", err)
	}
	if len(entries) > 0 {
		return fmt.Errorf("%s is not empty: it has %s", dir, entries[0].Name())
	}
	return nil
}
