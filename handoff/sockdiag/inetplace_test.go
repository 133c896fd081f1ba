package sockdiag

import (
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/gracerun/grace/handoff/internal/apptest"
	"golang.org/x/sys/unix"
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

func TestAThousandAddressesAreTwoQuestions(t *testing.T) {
	var addresses []netip.AddrPort
	for port := range uint16(1000) {
		for _, ip := range []string{"127.0.0.1", "::1", "0.0.0.0"} {
			addresses = append(addresses, netip.AddrPortFrom(netip.MustParseAddr(ip), 2000+7*port))
		}
	}
	if got := (inetQuery{}).at(append(addresses, netip.AddrPort{})); len(got) != 2 {
		t.Errorf("%d questions", len(got))
	}
}

func TestConnectionsAndQueuesOfEachListener(t *testing.T) {
	folder, client := t.TempDir(), 0
	var listeners []*heldListener
	for _, written := range []string{"127.0.0.1:0", "unix://" + folder + "/a", "[::1]:0", "unix://" + folder + "/b", "udp://127.0.0.1:0"} {
		l := listenAt(t, written)
		for range client {
			conn, err := net.Dial(strings.TrimSuffix(l.Network(), "6"), l.Bound())
			apptest.Must(t, err)
			t.Cleanup(func() { conn.Close() })
		}
		listeners, client = append(listeners, l), client+1
	}
	queued, err := QueuedEach(listeners)
	if want := []int{0, 1, 2, 3, 0}; err != nil || !slices.Equal(queued, want) {
		t.Errorf("queues %v, %v, want %v", queued, err, want)
	}
	for range 2 {
		fd, _, err := unix.Accept4(listeners[3].FD(), unix.SOCK_CLOEXEC)
		apptest.Must(t, err)
		t.Cleanup(func() { unix.Close(fd) })
	}
	fd, _, err := unix.Accept4(listeners[2].FD(), unix.SOCK_CLOEXEC)
	apptest.Must(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	open, err := ConnectionsEach([]int{os.Getpid()}, listeners)
	if want := []int{0, 0, 1, 2, 0}; err != nil || !slices.Equal(open, want) {
		t.Errorf("connections %v, %v, want %v", open, err, want)
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
	apptest.Must(t, err)
	t.Cleanup(func() { l.Close() })
	for range n {
		client, err := net.Dial("tcp", l.Addr().String())
		apptest.Must(t, err)
		t.Cleanup(func() { client.Close() })
		server, err := l.Accept()
		apptest.Must(t, err)
		t.Cleanup(func() { server.Close() })
	}
	return l.Addr().(*net.TCPAddr).AddrPort()
}
