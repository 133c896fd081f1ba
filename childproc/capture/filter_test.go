package capture

import (
	"runtime"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// data is struct seccomp_data, as far as the filter looks at it.
type data struct {
	number, arch, third uint32
}

// evaluate runs a program, and tells what of the data it has looked at.
func evaluate(t *testing.T, program []unix.SockFilter, d data) (verdict uint32, looked []uint32) {
	t.Helper()
	value := uint32(0)
	for at := 0; at < len(program); at++ {
		switch i := program[at]; i.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			looked = append(looked, i.K)
			value = map[uint32]uint32{0: d.number, 4: d.arch, 32: d.third}[i.K]
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			if value == i.K {
				at += int(i.Jt)
			} else {
				at += int(i.Jf)
			}
		case unix.BPF_RET | unix.BPF_K:
			return i.K, looked
		default:
			t.Fatalf("instruction %d has code %#x, which the kernel does not follow for its bitmap", at, i.Code)
		}
	}
	t.Fatal("the program has no end")
	return 0, nil
}

const (
	archAMD64 = 0xc000003e
	archI386  = 0x40000003
	archARM64 = 0xc00000b7
	archARM   = 0x40000028

	allowed  = unix.SECCOMP_RET_ALLOW
	notified = unix.SECCOMP_RET_USER_NOTIF
	denied   = unix.SECCOMP_RET_ERRNO | 93 // EPROTONOSUPPORT
)

func TestFilter(t *testing.T) {
	number, arch := []uint32{0}, []uint32{4}
	byNumber := slices.Concat(arch, number)
	for name, test := range map[string]struct {
		architecture string
		data         data
		verdict      uint32
		looked       []uint32
	}{
		"amd64 bind":            {"amd64", data{number: 49, arch: archAMD64}, notified, byNumber},
		"amd64 listen":          {"amd64", data{number: 50, arch: archAMD64}, notified, byNumber},
		"amd64 unlink":          {"amd64", data{number: 87, arch: archAMD64}, notified, byNumber},
		"amd64 unlinkat":        {"amd64", data{number: 263, arch: archAMD64}, notified, byNumber},
		"arm64 unlinkat":        {"arm64", data{number: 35, arch: archARM64}, notified, byNumber},
		"amd64 read":            {"amd64", data{number: 0, arch: archAMD64}, allowed, byNumber},
		"amd64 accept4":         {"amd64", data{number: 288, arch: archAMD64, third: 262}, allowed, byNumber},
		"amd64 socket":          {"amd64", data{number: 41, arch: archAMD64}, allowed, []uint32{4, 0, 32}},
		"amd64 socket of TCP":   {"amd64", data{number: 41, arch: archAMD64, third: 6}, allowed, []uint32{4, 0, 32}},
		"amd64 socket of MPTCP": {"amd64", data{number: 41, arch: archAMD64, third: 262}, denied, []uint32{4, 0, 32}},
		"x32 bind":              {"amd64", data{number: 0x40000000 | 49, arch: archAMD64}, allowed, byNumber},
		"i386 bind":             {"amd64", data{number: 361, arch: archI386}, allowed, arch},
		"i386 number of bind":   {"amd64", data{number: 49, arch: archI386}, allowed, arch},
		"arm64 bind":            {"arm64", data{number: 200, arch: archARM64}, notified, byNumber},
		"arm64 listen":          {"arm64", data{number: 201, arch: archARM64}, notified, byNumber},
		"arm64 accept4":         {"arm64", data{number: 242, arch: archARM64}, allowed, byNumber},
		"arm64 MPTCP":           {"arm64", data{number: 198, arch: archARM64, third: 262}, denied, []uint32{4, 0, 32}},
		"arm64 number on amd64": {"amd64", data{number: 200, arch: archAMD64}, allowed, byNumber},
		"arm bind":              {"arm64", data{number: 282, arch: archARM}, allowed, arch},
	} {
		t.Run(name, func(t *testing.T) {
			a, ok := abiOf(test.architecture)
			if !ok {
				t.Fatal("not known")
			}
			verdict, looked := evaluate(t, a.filter(a.asked(true)), test.data)
			if verdict != test.verdict || !slices.Equal(looked, test.looked) {
				t.Errorf("verdict %#x after looking at %d", verdict, looked)
			}
		})
	}
}

// Only calls that are decided by their number are in the kernel's bitmap.
func TestAllOtherCallsAreAllowedByNumber(t *testing.T) {
	for _, architecture := range []string{"amd64", "arm64"} {
		a, _ := abiOf(architecture)
		for _, asked := range [][]uint32{a.asked(false), a.asked(true)} {
			for number := range uint32(1024) {
				verdict, looked := evaluate(t, a.filter(asked), data{number: number, arch: a.arch, third: unix.IPPROTO_MPTCP})
				special := number == a.socket || slices.Contains(asked, number)
				if (verdict == allowed) == special || !special && slices.Contains(looked, offsetThirdArg) {
					t.Errorf("%s, call %d: verdict %#x after looking at %d", architecture, number, verdict, looked)
				}
			}
		}
	}
}

func TestNumbersAreThoseOfThisArchitecture(t *testing.T) {
	a, ok := abiOf(runtime.GOARCH)
	if !ok {
		t.Skip("nothing is captured on " + runtime.GOARCH)
	}
	arch := map[string]uint32{"amd64": unix.AUDIT_ARCH_X86_64, "arm64": unix.AUDIT_ARCH_AARCH64}[runtime.GOARCH]
	want := abi{arch: arch, socket: unix.SYS_SOCKET, bind: unix.SYS_BIND, listen: unix.SYS_LISTEN, unlink: a.unlink, unlinkat: unix.SYS_UNLINKAT}
	if a != want {
		t.Errorf("%+v, want %+v", a, want)
	}
	if unlink := map[string]uint32{"amd64": 87, "arm64": noCall}[runtime.GOARCH]; a.unlink != unlink {
		t.Errorf("unlink is %d, want %d", a.unlink, unlink) // package unix has none for arm64
	}
}

func TestOtherArchitecturesAreNotKnown(t *testing.T) {
	for _, architecture := range []string{"386", "arm", "riscv64", "s390x", ""} {
		if a, ok := abiOf(architecture); ok {
			t.Errorf("%s: %+v", architecture, a)
		}
	}
}
