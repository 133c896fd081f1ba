package handoff

import (
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
)

func TestRangesOf(t *testing.T) {
	every := make([]uint16, 0, 2*rangesAtMost+2)
	for port := range uint16(cap(every)) {
		every = append(every, 1000+2*port)
	}
	for _, test := range []struct {
		ports []uint16
		want  []portRange
	}{
		{nil, nil},
		{[]uint16{80}, []portRange{{80, 80}}},
		{[]uint16{8080, 80, 81, 82, 80}, []portRange{{80, 82}, {8080, 8080}}},
		{[]uint16{65535, 65534}, []portRange{{65534, 65535}}},
		{every, []portRange{{1000, every[len(every)-1]}}},
	} {
		if got := rangesOf(test.ports); !slices.Equal(got, test.want) {
			t.Errorf("%v: %v, want %v", test.ports, got, test.want)
		}
	}
}

// The kernel checks the program, and runs it: each number of ranges is another one.
func TestOpenAtCountsByAddress(t *testing.T) {
	for _, listeners := range []int{1, 2, 3, rangesAtMost, rangesAtMost + 3} {
		var addresses []netip.AddrPort
		var want []int
		for n := range listeners {
			at := acceptSome(t, n%3)
			addresses, want = append(addresses, at), append(want, n%3)
		}
		got, err := OpenAt([]int{os.Getpid()}, addresses)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("at %d addresses: %v, %v, want %v", listeners, got, err, want)
		}
	}
}

// acceptSome gives a listener's address that this process has accepted n connections at.
func acceptSome(t *testing.T, n int) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { l.Close() })
	for range n {
		client, err := net.Dial("tcp", l.Addr().String())
		must(t, err)
		t.Cleanup(func() { client.Close() })
		server, err := l.Accept()
		must(t, err)
		t.Cleanup(func() { server.Close() })
	}
	return l.Addr().(*net.TCPAddr).AddrPort()
}
