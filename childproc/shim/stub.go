//go:build amd64 || arm64

package shim

import "unsafe"

// The stub has its code in front of its data: the kernel reserves addresses from the first segment to the last (before Linux
// 6.10 for programs at fixed addresses too, total_mapping_size in fs/binfmt_elf.c).
const codeAt = base - 1<<20

// stub is in the assembler's files. It is never called: nothing in it refers to where it is, so it runs in another program too.
//
//lint:ignore U1000 the assembler's stubCode refers to it
func stub()

// stubCode is where it begins. A Go function's value would lead to a wrapper (cmd/compile/abi-internal).
func stubCode() uintptr

// stubEnd are the bytes after its last instruction.
const stubEnd = "\xf0end\xf1end"

// Stub is an ELF executable with the stub as its code. It is nil for an architecture that has none.
func Stub() []byte {
	code := code()
	const segments = 3
	const head = 64 + segments*56
	image := appendHeader(make([]byte, 0, head+len(code)), codeAt+head, segments)
	image = appendSegment(image, segment{kind: load, flags: read | execute, address: codeAt, inFile: uint64(head + len(code))})
	image = appendSegment(image, segment{kind: load, flags: read | write, address: base, inMemory: size})
	image = appendSegment(image, segment{kind: stack, flags: read | write})
	return append(image, code...)
}

func code() []byte {
	at := stubCode()
	for n := 0; ; n++ {
		if string(memory(at+uintptr(n), len(stubEnd))) == stubEnd {
			return memory(at, n)
		}
	}
}

// What of elf(5) is needed.
const (
	execute = 1
	write   = 2
	read    = 4

	load  = 1
	stack = 0x6474e551 // PT_GNU_STACK: without it the stack could be executed
)

type segment struct {
	kind, flags               uint32
	address, inFile, inMemory uint64
}

// appendHeader is for an executable that is not moved, of the machine that grace was built for.
func appendHeader(image []byte, entry uint64, segments uint16) []byte {
	image = append(image, 0x7f, 'E', 'L', 'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	image = appendValues(image, uint16(2), elfMachine)
	image = appendValues(image, uint32(1))
	image = appendValues(image, entry, uint64(64), uint64(0))
	image = appendValues(image, uint32(0))
	return appendValues(image, uint16(64), uint16(56), segments, uint16(0), uint16(0), uint16(0))
}

func appendSegment(image []byte, s segment) []byte {
	const pageAlign = 1 << 16 // the largest page of arm64
	image = appendValues(image, s.kind, s.flags)
	return appendValues(image, uint64(0), s.address, s.address, s.inFile, max(s.inMemory, s.inFile), uint64(pageAlign))
}

func appendValues[T uint16 | uint32 | uint64](image []byte, values ...T) []byte {
	return append(image, unsafe.Slice((*byte)(unsafe.Pointer(&values[0])), len(values)*int(unsafe.Sizeof(values[0])))...)
}
