package farewell

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// kernelTypes is the kernel's description of its own types (Documentation/bpf/btf.rst). It has some 100,000; a library that makes
// values of them all takes 60 ms for that, in the middle of an upgrade. It belongs to one goroutine, until close.
type kernelTypes struct {
	memory         []byte // not Go's: it would stay for long
	types, strings []byte
}

const kernelTypesPath = "/sys/kernel/btf/vmlinux"

func openKernelTypes() (*kernelTypes, error) {
	text, err := mapped(kernelTypesPath)
	if err != nil {
		return nil, fmt.Errorf("cannot read the kernel's types: %w", err)
	}
	k, err := parseKernelTypes(text)
	if err != nil {
		_ = unix.Munmap(text)
		return nil, err
	}
	k.memory = text
	return k, nil
}

func (k *kernelTypes) close() error { return unix.Munmap(k.memory) }

// mapped gives a file's content until munmap(2).
func mapped(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	text, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_PRIVATE)
	if err == nil {
		return text, nil
	}
	// Linux before 6.16 maps none of sysfs.
	text, err = unix.Mmap(-1, 0, int(info.Size()), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE)
	if err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	if _, err := io.ReadFull(f, text); err != nil {
		_ = unix.Munmap(text)
		return nil, err
	}
	return text, nil
}

// struct btf_header of linux/btf.h
const (
	typesMagic      = 0xeb9f
	typesHeaderSize = 24
)

func parseKernelTypes(text []byte) (*kernelTypes, error) {
	ne := binary.NativeEndian
	if len(text) < typesHeaderSize || ne.Uint16(text) != typesMagic {
		return nil, errTypes
	}
	body := uint64(ne.Uint32(text[4:]))
	part := func(at int) []byte {
		begin := body + uint64(ne.Uint32(text[at:]))
		end := begin + uint64(ne.Uint32(text[at+4:]))
		if end > uint64(len(text)) {
			return nil
		}
		return text[begin:end]
	}
	return &kernelTypes{types: part(8), strings: part(16)}, nil
}

var errTypes = fmt.Errorf("cannot understand the kernel's types in %s", kernelTypesPath)

// kernelType is one of the types: struct btf_type, and what follows it.
type kernelType struct {
	number  uint32
	kind    byte
	flag    bool
	members int
	rest    []byte
}

// Kinds that are looked for (BTF_KIND_* of linux/btf.h).
const (
	kindStruct   = 4
	kindFunction = 12
)

const (
	typeSize   = 12 // struct btf_type
	memberSize = 12 // struct btf_member
)

// after is how much follows a type of a kind: so much, and so much for each of its members.
var after = [...]struct{ fixed, each int }{
	1: {fixed: 4}, 2: {}, 3: {fixed: 12}, kindStruct: {each: memberSize}, 5: {each: memberSize}, 6: {each: 8}, 7: {}, 8: {}, 9: {}, 10: {}, 11: {},
	kindFunction: {}, 13: {each: 8}, 14: {fixed: 4}, 15: {each: 12}, 16: {}, 17: {fixed: 4}, 18: {}, 19: {each: 12},
}

// find goes through all types. They have their numbers from 1 on, in the order in which they are written.
func (k *kernelTypes) find(kind byte, name string) (kernelType, error) {
	wanted, known := k.named(name)
	ne, rest := binary.NativeEndian, k.types
	for number := uint32(1); known && len(rest) >= typeSize; number++ {
		info := ne.Uint32(rest[4:])
		t := kernelType{number: number, kind: byte(info >> 24 & 0x1f), flag: info>>31 != 0, members: int(info & 0xffff)}
		if t.kind == 0 || int(t.kind) >= len(after) {
			return t, errTypes
		}
		size := typeSize + after[t.kind].fixed + t.members*after[t.kind].each
		if size > len(rest) {
			return t, errTypes
		}
		if t.kind == kind && ne.Uint32(rest) == wanted {
			t.rest = rest[typeSize:size]
			return t, nil
		}
		rest = rest[size:]
	}
	return kernelType{}, fmt.Errorf("this kernel has no %s", name)
}

// named gives the place of a name, which stands for it in the types.
func (k *kernelTypes) named(name string) (uint32, bool) {
	at := bytes.Index(k.strings, []byte("\x00"+name+"\x00"))
	return uint32(at + 1), at >= 0
}

// offset is that of a member in bytes.
func (k *kernelTypes) offset(t kernelType, name string) (int16, error) {
	ne := binary.NativeEndian
	wanted, known := k.named(name)
	for i := 0; known && i < t.members; i++ {
		member := t.rest[i*memberSize:]
		if ne.Uint32(member) != wanted {
			continue
		}
		bits := ne.Uint32(member[8:])
		if t.flag {
			bits &= 0xffffff // the rest is the size of a bit field
		}
		return int16(bits / 8), nil
	}
	return 0, fmt.Errorf("this kernel's structure has no %s", name)
}
