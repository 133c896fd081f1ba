package sockdiag

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

func TestCollide(t *testing.T) {
	tests := []struct {
		mine         string
		mineV6Only   bool
		theirs       string
		theirsV6Only bool
		want         bool
	}{
		{"127.0.0.1", false, "127.0.0.1", false, true},
		{"127.0.0.1", false, "127.0.0.2", false, false},
		{"127.0.0.1", false, "0.0.0.0", false, true},
		{"0.0.0.0", false, "127.0.0.1", false, true},
		{"127.0.0.1", false, "::", false, true},
		{"127.0.0.1", false, "::", true, false},
		{"127.0.0.1", false, "::1", false, false},
		{"0.0.0.0", false, "::", false, true},
		{"0.0.0.0", false, "::", true, false},
		{"::", false, "127.0.0.1", false, true},
		{"::", true, "127.0.0.1", false, false},
		{"::1", false, "127.0.0.1", false, false},
		{"::", true, "::1", false, true},
		{"::1", true, "::", true, true},
		{"::1", false, "::2", false, false},
		{"::ffff:127.0.0.1", false, "127.0.0.1", false, true},
		{"fe80::1%lo", false, "fe80::1", false, true},
	}
	for _, test := range tests {
		if got := Collide(netip.MustParseAddr(test.mine), test.mineV6Only, netip.MustParseAddr(test.theirs), test.theirsV6Only); got != test.want {
			t.Errorf("%+v: %v", test, got)
		}
	}
}

func TestDumpsAreReadWithCare(t *testing.T) {
	for name, b := range map[string][]byte{
		"longer than the packet":  {200, 0, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		"shorter than its header": {1, 0, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		"an error without number": {16, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
	} {
		if _, err := readMessages(b, func([]byte) {}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if got := parseInetSocket([]byte{1}); got != (inetSocket{}) {
		t.Errorf("a short message is %+v", got)
	}
	for _, attributes := range [][]byte{{}, {3, 0, 11, 0}, {9, 0, 11, 0, 1}, {4, 0, 11, 0}, {5, 0, 11, 0, 0, 0, 0, 0}} {
		if value := diagAttribute(attributes, diagV6Only); len(value) > 0 && value[0] != 0 {
			t.Errorf("%v", attributes)
		}
	}
}

func TestParseUnixSocket(t *testing.T) {
	line := "0000000000000000: 00000002 00000000 00010000 0001 01 26053 /run/a b.sock"
	want := unixSocket{name: "/run/a b.sock", inode: 26053, listening: true, kind: unix.SOCK_STREAM}
	if got, ok := parseUnixSocket(line); !ok || got != want {
		t.Errorf("%+v, %v", got, ok)
	}
	for _, nameless := range []string{
		"Num       RefCount Protocol Flags    Type St Inode Path",
		"0000000000000000: 00000003 00000000 00000000 0001 03 24621", "",
	} {
		if got, ok := parseUnixSocket(nameless); ok {
			t.Errorf("%q is %+v", nameless, got)
		}
	}
}
