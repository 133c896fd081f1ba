package handoff

import (
	"net"
	"net/netip"
	"os"
	"runtime"
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

// Each question has the kernel go through all sockets of the machine, and each look into /proc through all descriptors
// of a process. Their buffers tell how many there were: a listener more is none more.
func TestQuestionsDoNotGrowWithListeners(t *testing.T) {
	const n = 40
	s, err := NewSteering(nil)
	apptest.Must(t, err)
	defer s.Close()
	var addresses []netip.AddrPort
	var listeners []*Listener
	asks := map[string]func() error{
		"bind":        func() error { serve(t, s, Member{2, 0}, reservePort(t, "127.0.0.1")); return nil },
		"queued":      func() error { _, err := s.Queued(1); return err },
		"queues":      func() error { s.Queues(1); return nil },
		"open":        func() error { _, err := OpenAt([]int{os.Getpid()}, addresses); return err },
		"queued each": func() error { _, err := QueuedEach(listeners); return err },
		"connections": func() error { _, err := ConnectionsEach([]int{os.Getpid()}, listeners); return err },
	}
	allocated := make(map[string][2]int)
	for round := range 2 {
		for range n {
			at := reservePort(t, "127.0.0.1")
			serve(t, s, Member{1, 0}, at)
			addresses, listeners = append(addresses, at), append(listeners, hold(t, "127.0.0.1:0"))
		}
		_, err := s.Cutover(2) // those of generation 1 are asked about: they may get what has begun
		apptest.Must(t, err)
		for name, ask := range asks {
			bytes := allocated[name]
			bytes[round] = allocatedBy(t, ask)
			allocated[name] = bytes
		}
	}
	for name, bytes := range allocated {
		if each := (bytes[1] - bytes[0]) / n; each > diagReplySize/4 {
			t.Errorf("%s: %d bytes more for each listener more, of %v", name, each, bytes)
		}
	}
}

func allocatedBy(t *testing.T, ask func() error) int {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	apptest.Must(t, ask())
	runtime.ReadMemStats(&after)
	return int(after.TotalAlloc - before.TotalAlloc)
}

// A bind asks for who has a socket only where one is in its way.
func TestBindLooksForNobodyWhereNothingIsInTheWay(t *testing.T) {
	looks := 0
	s, err := NewSteering(func(Member, uint64) bool { looks++; return true })
	apptest.Must(t, err)
	defer s.Close()
	for range 30 {
		at := reservePort(t, "127.0.0.1")
		serve(t, s, Member{1, 0}, at)
		serve(t, s, Member{2, 0}, at)
	}
	if looks > 0 {
		t.Errorf("%d looks at 60 binds", looks)
	}
}

func TestConnectionsAndQueuesOfEachListener(t *testing.T) {
	folder, client := t.TempDir(), 0
	var listeners []*Listener
	for _, written := range []string{"127.0.0.1:0", "unix://" + folder + "/a", "[::1]:0", "unix://" + folder + "/b", "udp://127.0.0.1:0"} {
		l := hold(t, written)
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

// An instance may bind while the sockets are given up: what was let go is found no more.
func TestBindAfterItsAddressWasLetGo(t *testing.T) {
	s, at := newSteering(t), reservePort(t, "127.0.0.1")
	serve(t, s, Member{1, 0}, at).close()
	apptest.Must(t, s.TurnAway())
	apptest.Must(t, s.LetGo(1))
	serve(t, s, Member{2, 0}, at)
}
