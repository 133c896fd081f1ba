package supervisor

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Output is where a process writes one of its streams.
type Output struct {
	Unit     string // whose journal it is; "" is no journal
	UserUnit bool   // the unit is one of a user's service manager
	File     string // a regular file, or ""
	Where    string // in words, whatever it is
}

// OutputOf says where the stream with descriptor fd of a process goes. Only the process's user and root may know.
func OutputOf(pid, fd int) (Output, error) {
	link := fmt.Sprintf("/proc/%d/fd/%d", pid, fd)
	target, err := os.Readlink(link)
	if err != nil {
		return Output{}, err
	}
	info, err := os.Stat(link)
	if err != nil {
		return Output{}, err
	}
	kind, _, _ := strings.Cut(target, ":")
	switch {
	case info.Mode().IsRegular():
		return regularOutput(link, target, info), nil
	case kind == "socket" && inJournal(pid, info):
		return journalOf(pid), nil
	case kind == "pipe":
		return Output{Where: "a pipe that " + readersOf(target) + " reads"}, nil
	case kind == "socket":
		return Output{Where: "a socket of the process that started grace"}, nil
	case target == os.DevNull:
		return Output{Where: "/dev/null, which keeps nothing"}, nil
	case info.Mode()&os.ModeCharDevice != 0:
		return Output{Where: "the terminal " + target}, nil
	}
	return Output{Where: target}, nil
}

// regularOutput is the path of a file, unless that leads elsewhere by now or in this process.
func regularOutput(link, target string, info os.FileInfo) Output {
	if there, err := os.Stat(target); err == nil && os.SameFile(there, info) {
		return Output{File: target, Where: target}
	}
	return Output{File: link, Where: target}
}

// inJournal: JOURNAL_STREAM has the device and the inode of the socket (systemd.exec(5)).
func inJournal(pid int, info os.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	environment, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil || !ok {
		return false
	}
	for variable := range strings.SplitSeq(string(environment), "\x00") {
		if stream, found := strings.CutPrefix(variable, "JOURNAL_STREAM="); found {
			return stream == fmt.Sprintf("%d:%d", stat.Dev, stat.Ino)
		}
	}
	return false
}

func journalOf(pid int) Output {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return Output{Where: "the journal"}
	}
	unit, ofUser := unitIn(string(text))
	if unit == "" {
		return Output{Where: fmt.Sprintf("the journal (journalctl _PID=%d)", pid)}
	}
	return Output{Unit: unit, UserUnit: ofUser, Where: "the journal of " + unit}
}

// unitIn is the innermost service of a cgroup file, and whether it is below a user's service manager.
func unitIn(cgroup string) (unit string, ofUser bool) {
	for line := range strings.Lines(cgroup) {
		hierarchy, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		_, dir, _ := strings.Cut(rest, ":")
		if hierarchy != "0" {
			continue
		}
		for ; dir != "/" && dir != "." && unit == ""; dir = path.Dir(dir) {
			if strings.HasSuffix(dir, ".service") {
				unit = path.Base(dir)
			}
		}
		ofUser = strings.Contains(dir, "/user@")
	}
	return unit, ofUser
}

// readersOf names the processes that have the other end of a pipe, as far as this process may look.
func readersOf(pipe string) string {
	var readers []string
	links, _ := filepath.Glob("/proc/[0-9]*/fd/*") // its only error is about the pattern
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && target == pipe && reads(link) {
			pid := strings.Split(link, "/")[2]
			name, _ := os.ReadFile("/proc/" + pid + "/comm") // that has gone has no name
			reader := fmt.Sprintf("process %s (%s)", pid, strings.TrimSpace(string(name)))
			if len(readers) == 0 || readers[len(readers)-1] != reader {
				readers = append(readers, reader)
			}
		}
	}
	if len(readers) == 0 {
		return "a process that this user cannot see (in a container, the engine: docker logs, kubectl logs)"
	}
	return strings.Join(readers, ", ")
}

// reads reports whether a descriptor is open for reading only (proc_pid_fdinfo(5)).
func reads(link string) bool {
	text, err := os.ReadFile(strings.Replace(link, "/fd/", "/fdinfo/", 1))
	if err != nil {
		return false
	}
	_, flags, _ := strings.Cut(string(text), "flags:")
	flags, _, _ = strings.Cut(strings.TrimSpace(flags), "\n")
	n, err := strconv.ParseUint(flags, 8, 64)
	return err == nil && n&syscall.O_ACCMODE == syscall.O_RDONLY
}
