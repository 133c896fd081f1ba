package main

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// sources is a checkout of grace.
type sources struct {
	dir       string
	committed time.Time // the time of all files in a release, so that two builds of one commit are the same
	changed   bool      // there are changes that no commit has
}

func openSources(dir string) (sources, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return sources{}, fmt.Errorf("cannot find the sources: %w", err)
	}
	s := sources{dir: dir}
	seconds, err := s.git("log", "-1", "--format=%ct")
	if err != nil {
		return sources{}, err
	}
	number, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return sources{}, fmt.Errorf("cannot read the time of the last commit: %w", err)
	}
	s.committed = time.Unix(number, 0).UTC()
	changes, err := s.git("status", "--porcelain")
	s.changed = changes != ""
	return s, err
}

func (s sources) git(arguments ...string) (string, error) {
	return run(s.dir, nil, "git", arguments...)
}

// run gives the standard output, without the end of its last line.
func run(dir string, environment []string, program string, arguments ...string) (string, error) {
	c := exec.Command(program, arguments...)
	c.Dir, c.Env = dir, append(c.Environ(), environment...)
	out, err := c.Output()
	if failed := (*exec.ExitError)(nil); errors.As(err, &failed) {
		return "", fmt.Errorf("%s %s: %w: %s", program, strings.Join(arguments, " "), err, failed.Stderr)
	}
	if err != nil {
		return "", fmt.Errorf("cannot run %s: %w", program, err)
	}
	return strings.TrimSpace(string(out)), nil
}
