package shim

import (
	"syscall"
	"unsafe"
)

// Name is argv[0] of a copy of grace that is about to become an app.
const Name = "grace-shim"

func init() {
	if isShim(commandLine()) {
		carryOut()
		syscall.Exit(StatusFailed)
	}
}

// commandLine reads as much as is needed of what package os would know, were it there already.
func commandLine() []byte {
	fd, err := syscall.Open("/proc/self/cmdline", syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer syscall.Close(fd)
	text := make([]byte, len(Name)+1)
	n, _ := syscall.Read(fd, text)
	return text[:max(n, 0)]
}

func isShim(text []byte) bool { return string(text) == Name+"\x00" }

// carryOut does what the stub does. System calls that concern their own thread alone are enough: of all threads the exec
// keeps the one that calls it, and an init runs on one thread (runtime.main).
func carryOut() {
	const fixed = 0x100000 // MAP_FIXED_NOREPLACE of linux/mman.h; before Linux 4.17 it is no more than a wish
	at, _, errno := syscall.Syscall6(syscall.SYS_MMAP, base, size, syscall.PROT_READ|syscall.PROT_WRITE,
		syscall.MAP_PRIVATE|syscall.MAP_ANON|fixed, ^uintptr(0), 0)
	if errno != 0 || at != base {
		return
	}
	if !readList() {
		return
	}
	if index, errno := carryOutList(); errno != 0 {
		*word(report), *word(report + wordSize) = uint64(index), uint64(errno)
		// Nobody is left to tell if this write fails; the exit status says it too.
		_, _ = syscall.Write(int(*word(connection)), memory(report, ReportSize))
	}
}

func readList() bool {
	for have, want := 0, headSize; have < want; want = max(want, int(*word(whole))) {
		n, err := syscall.Read(0, memory(start+uintptr(have), want-have))
		if err == syscall.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return false
		}
		have += n
	}
	return true
}

func carryOutList() (index int, errno syscall.Errno) {
	end := start + uintptr(*word(whole))
	for at := uintptr(*word(firstCall)); at < end; at += callSize {
		c := (*call)(unsafe.Pointer(word(at)))
		a := c.arguments
		result, _, errno := syscall.RawSyscall6(uintptr(c.number), uintptr(a[0]), uintptr(a[1]), uintptr(a[2]), uintptr(a[3]), uintptr(a[4]), uintptr(a[5]))
		if errno != 0 {
			return index, errno
		}
		if c.result != 0 {
			*word(uintptr(c.result)) = uint64(result)
		}
		if c.digits != 0 {
			writeDigits(memory(uintptr(c.digits), mostDigits), uint64(result))
		}
		index++
	}
	return 0, 0
}

// writeDigits writes a number as text, after which it leaves all as it is.
func writeDigits(text []byte, number uint64) {
	n := 1
	for rest := number / 10; rest > 0; rest /= 10 {
		n++
	}
	for ; n > 0; n-- {
		text[n-1] = byte('0' + number%10)
		number /= 10
	}
}

func memory(at uintptr, n int) []byte { return unsafe.Slice((*byte)(unsafe.Pointer(word(at))), n) }

// word reaches memory that is not Go's.
func word(at uintptr) *uint64 { return *(**uint64)(unsafe.Pointer(&at)) }
