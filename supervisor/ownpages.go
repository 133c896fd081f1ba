package supervisor

import (
	"bufio"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// giveBackPages unmaps the pages of the program's file. They stay in the kernel's cache, which can do without them now, and an
// upgrade maps again what it needs of them: two thirds of grace's resident memory, and less than half a millisecond.
func giveBackPages() {
	mappings, err := os.Open("/proc/self/smaps")
	if err != nil {
		return // grace only stays larger
	}
	defer mappings.Close()
	for _, m := range unchanged(mappings) {
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, m.start, m.end-m.start, unix.MADV_DONTNEED)
	}
}

// mapping is a range of this process's memory.
type mapping struct{ start, end uintptr }

// unchanged are the mappings that are as in their file (proc_pid_smaps(5)). Some that cannot be written any more were before, such
// as what a linker relocates (RELRO), and a debugger's breakpoints are in pages of their own: these would be lost.
func unchanged(smaps io.Reader) (found []mapping) {
	var last mapping
	var ofFile bool
	for lines := bufio.NewScanner(smaps); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		switch m, isMapping := mappingOf(fields); {
		case isMapping:
			last, ofFile = m, len(fields) > 5 && strings.HasPrefix(fields[5], "/") && !strings.Contains(fields[1], "w")
		case ofFile && len(fields) > 1 && fields[0] == "Anonymous:" && fields[1] == "0":
			found = append(found, last)
		}
	}
	return found
}

// mappingOf is that of a line which begins one: 00400000-00b4d000 r-xp 00000000 fe:00 9979367 /usr/bin/grace
func mappingOf(fields []string) (m mapping, ok bool) {
	if len(fields) < 5 {
		return m, false
	}
	from, to, _ := strings.Cut(fields[0], "-")
	start, err := strconv.ParseUint(from, 16, strconv.IntSize)
	if err != nil {
		return m, false
	}
	end, err := strconv.ParseUint(to, 16, strconv.IntSize)
	return mapping{uintptr(start), uintptr(end)}, err == nil
}
