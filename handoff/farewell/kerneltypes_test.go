package farewell

import (
	"bytes"
	"os"
	"testing"

	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// A library that reads all of it finds the same.
func TestKernelTypes(t *testing.T) {
	k, err := openKernelTypes()
	if err != nil {
		t.Fatal(err)
	}
	defer k.close()
	kernel, err := btf.LoadKernelSpec()
	if err != nil {
		t.Fatal(err)
	}
	var function *btf.Func
	if err := kernel.TypeByName("bpf_iter_bpf_sk_storage_map", &function); err != nil {
		t.Fatal(err)
	}
	want, err := kernel.TypeID(function)
	if got, err2 := k.find(kindFunction, function.Name); err != nil || err2 != nil || got.number != uint32(want) {
		t.Errorf("%s is %d, want %d: %v, %v", function.Name, got.number, want, err, err2)
	}
	var sock *btf.Struct
	if err := kernel.TypeByName("tcp_sock", &sock); err != nil {
		t.Fatal(err)
	}
	got, err := k.find(kindStruct, "tcp_sock")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range sock.Members {
		if m.Name == "" || m.BitfieldSize > 0 {
			continue
		}
		if at, err := k.offset(got, m.Name); err != nil || uint32(at) != m.Offset.Bytes() {
			t.Errorf("%s is at %d, want %d: %v", m.Name, at, m.Offset.Bytes(), err)
		}
	}
}

// Of sysfs, Linux maps the types only, and only from 6.16 on.
func TestWhatCannotBeMappedIsRead(t *testing.T) {
	const path = "/sys/kernel/notes"
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	got, err := mapped(path)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%d bytes in place of %d: %v", len(got), len(want), err)
	}
	if err := unix.Munmap(got); err != nil {
		t.Error(err)
	}
}

func TestUnknownTypes(t *testing.T) {
	k, err := openKernelTypes()
	if err != nil {
		t.Fatal(err)
	}
	defer k.close()
	if _, err := k.find(kindStruct, "tcp_sock_of_grace"); err == nil {
		t.Error("a structure was found that is none of the kernel's")
	}
	sock, _ := k.find(kindStruct, "tcp_sock")
	if _, err := k.offset(sock, "init_task"); err == nil {
		t.Error("a member was found that is none of the structure's")
	}
	if _, err := k.find(kindFunction, "tcp_sock"); err == nil {
		t.Error("a structure was found as a function")
	}
}

// FuzzKernelTypes: whatever is in the file, it is refused or gives a type that is whole.
func FuzzKernelTypes(f *testing.F) {
	whole, err := os.ReadFile(kernelTypesPath)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole[:4096])
	f.Fuzz(func(t *testing.T, text []byte) {
		k, err := parseKernelTypes(text)
		if err != nil {
			return
		}
		if s, err := k.find(kindStruct, "tcp_sock"); err == nil {
			_, _ = k.offset(s, "rcv_nxt")
		}
	})
}
