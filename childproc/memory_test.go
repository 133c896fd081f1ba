package childproc

import (
	"fmt"
	"io"
	"os"
	"testing"

	"github.com/gracerun/grace/childproc/memfd"
	"golang.org/x/sys/unix"
)

const sharedSize = 128 << 20

func init() {
	roles["mapper"] = func() {
		shared, err := unix.Mmap(3, 0, sharedSize, unix.PROT_READ, unix.MAP_SHARED|unix.MAP_POPULATE)
		fmt.Println(len(shared), err)
		io.Copy(io.Discard, os.Stdin)
	}
}

// startMappers starts processes that have all pages of a file in their memory.
func startMappers(t *testing.T, file *os.File) (pids []int) {
	t.Helper()
	for range 4 {
		c := roleCommand("mapper")
		c.ExtraFiles = []*os.File{file}
		p := startProgram(t, c)
		var size int
		var failed string
		if p.scan(t, &size, &failed); size != sharedSize {
			t.Fatal(failed)
		}
		pids = append(pids, p.pid())
	}
	return pids
}

// Pages that processes share are counted once, as they are those of forked workers.
func TestSharedMemoryCountsOnce(t *testing.T) {
	file := os.NewFile(uintptr(must(memfd.Create("shared"))), "shared")
	defer file.Close()
	if err := file.Truncate(sharedSize); err != nil {
		t.Fatal(err)
	}
	pids := startMappers(t, file)
	bound, once := must(Resident(pids)), must(Proportional(pids))
	if bound < 4*sharedSize || once < sharedSize || once >= 2*sharedSize {
		t.Errorf("at most %d, %d with shared pages counted once", bound, once)
	}
}

// What can be read again from a file is nobody's.
func TestFilesInMemoryDoNotCount(t *testing.T) {
	file := must(os.CreateTemp("", "memory-")) // not in a tmpfs, whose files are nowhere else
	defer file.Close()
	defer os.Remove(file.Name())
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(file.Fd()), &fs); err != nil || fs.Type == unix.TMPFS_MAGIC {
		t.Skip("temporary files are in memory here")
	}
	if _, err := file.Write(make([]byte, sharedSize)); err != nil {
		t.Fatal(err)
	}
	pids := startMappers(t, file)
	if bound, once := must(Resident(pids)), must(Proportional(pids)); bound >= 2*sharedSize || once >= 2*sharedSize {
		t.Errorf("at most %d, %d with shared pages counted once", bound, once)
	}
}

func TestMemoryOfNobody(t *testing.T) {
	if n, err := Resident([]int{1 << 30}); n != 0 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if n, err := Proportional([]int{1 << 30}); n != 0 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
}

func TestProportionalOfOldKernels(t *testing.T) {
	text := "55-7f ---p 00000000 00:00 0    [rollup]\nRss:   4000 kB\nPss:   3000 kB\nAnonymous:   1000 kB\nSwapPss:   10 kB\n"
	if got := proportional(memoryFields(text)); got != 1010<<10 {
		t.Error(got)
	}
}
