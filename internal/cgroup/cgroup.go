// Package cgroup finds and removes cgroups, for those who boot a systemd of their own.
package cgroup

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Own is the folder of this process in the cgroup2 mount.
func Own() (string, error) {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		path, found := strings.CutPrefix(strings.TrimSpace(line), "0::")
		if !found {
			continue
		}
		for _, mount := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
			if _, err := os.Stat(filepath.Join(mount, path, "cgroup.procs")); err == nil {
				return filepath.Join(mount, path), nil
			}
		}
	}
	return "", errors.New("no cgroup2 is mounted")
}

// Remove removes a folder that holds nothing but folders and the kernel's files.
func Remove(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			err = errors.Join(err, Remove(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(err, syscall.Rmdir(dir))
}
