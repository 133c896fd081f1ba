package main

import (
	"debug/buildinfo"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
)

// program is grace, built for one architecture.
type program struct {
	path         string
	architecture string
	build        *buildinfo.BuildInfo
	here         string // the same program for this machine, which can be run
}

// build makes the program for each architecture in a folder of its own, and for this machine.
func (s sources) build(dir string, architectures []string) (programs []program, err error) {
	here := filepath.Join(dir, "here")
	if err := s.compile(here, runtime.GOARCH); err != nil {
		return nil, err
	}
	for _, architecture := range architectures {
		path := filepath.Join(dir, architecture)
		if err := s.compile(path, architecture); err != nil {
			return nil, err
		}
		p, err := openProgram(path, architecture, here)
		if err != nil {
			return nil, err
		}
		programs = append(programs, p)
	}
	return programs, nil
}

func openProgram(path, architecture, here string) (program, error) {
	build, err := buildinfo.ReadFile(path)
	if err != nil {
		return program{}, fmt.Errorf("cannot read how %s was built: %w", path, err)
	}
	return program{path, architecture, build, here}, nil
}

// compile leaves out what differs between two machines: paths of folders, and the linker's mark of its inputs, which has them too.
func (s sources) compile(out, architecture string) error {
	_, err := run(s.dir, []string{"CGO_ENABLED=0", "GOOS=linux", "GOARCH=" + architecture, "GOFLAGS="},
		"go", "build", "-trimpath", "-buildvcs=true", "-ldflags=-s -w -buildid=", "-o", out, ".")
	return err
}

// version has no v in front, as packages write it.
func (p program) version() string {
	if v, ok := strings.CutPrefix(p.build.Main.Version, "v"); ok {
		return v
	}
	return unversioned
}

// unversioned is for a program that go build has not given a version: it knows git by a folder .git, which a worktree does not have.
const unversioned = "0.0.0"
