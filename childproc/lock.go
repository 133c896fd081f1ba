package childproc

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// FileID is a file, whatever it is called.
type FileID struct{ Device, Inode uint64 }

// Locked are the files on which processes have an exclusive lock, by flock or fcntl. The kernel tells of the locks beside the descriptor
// (show_fd_locks in fs/locks.c), also of those that belong to no process. What cannot be looked into has none.
func Locked(pids []int) map[FileID]string {
	files := map[FileID]string{}
	for _, pid := range pids {
		eachFile(pid, func(fd, path string, id FileID) {
			if info, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/fdinfo/" + fd); err == nil && exclusive(info) {
				files[id] = path
			}
		})
	}
	return files
}

// Opened are those of the files that processes have open.
func Opened(pids []int, files map[FileID]string) (paths []string) {
	for _, pid := range pids {
		eachFile(pid, func(_, _ string, id FileID) {
			if path, ok := files[id]; ok && !slices.Contains(paths, path) {
				paths = append(paths, path)
			}
		})
	}
	return paths
}

func exclusive(info []byte) bool {
	for line := range bytes.Lines(info) {
		if fields := bytes.Fields(line); len(fields) > 4 && string(fields[0]) == "lock:" && string(fields[4]) == "WRITE" {
			return true
		}
	}
	return false
}

// eachFile leaves out what has no path any more.
func eachFile(pid int, visit func(fd, path string, id FileID)) {
	dir := "/proc/" + strconv.Itoa(pid) + "/fd"
	fds, _ := numbersIn(dir)
	for _, n := range fds {
		fd := strconv.Itoa(n)
		link := filepath.Join(dir, fd)
		path, err := os.Readlink(link)
		if err != nil || !strings.HasPrefix(path, "/") {
			continue
		}
		var stat unix.Stat_t
		if err := unix.Stat(link, &stat); err == nil && stat.Mode&unix.S_IFMT == unix.S_IFREG && stat.Nlink > 0 {
			visit(fd, path, FileID{stat.Dev, stat.Ino})
		}
	}
}
