package farewell

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/gracerun/grace/handoff/internal/apptest"
	"golang.org/x/sys/unix"
)

// A client's TCP that has not got an acknowledgement sends a request again, though it was there: it is one request still.
func TestRequestThatComesTwice(t *testing.T) {
	apptest.RequireRoot(t) // for the raw socket
	w := newWire(t, "127.0.0.1")
	f := w.announce(t)
	w.ask(t, get)
	sendSegment(t, netip.MustParseAddrPort(w.client.LocalAddr().String()), w.at, seen(t, f).Last, get)
	apptest.Eventually(t, "it comes again", func() bool { return seen(t, f).Arrived == 2 })
	w.answer(t, plainOK)
	w.mustGet(t, closedOK)
}

func seen(t *testing.T, f *Farewell) (r record) {
	t.Helper()
	for _, c := range f.known {
		r, _ = announcer(t).look(c.cookie)
	}
	return r
}

// sendSegment sends a TCP segment past TCP.
func sendSegment(t *testing.T, from, to netip.AddrPort, sequence uint32, payload string) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	apptest.Must(t, err)
	defer unix.Close(fd)
	const pushAndAcknowledge = 0x18
	be := binary.BigEndian
	segment := be.AppendUint16(nil, from.Port())
	segment = be.AppendUint16(segment, to.Port())
	segment = be.AppendUint32(segment, sequence)
	segment = be.AppendUint32(segment, 0)
	segment = append(segment, 5<<4, pushAndAcknowledge, 0xff, 0xff, 0, 0, 0, 0)
	segment = append(segment, payload...)
	be.PutUint16(segment[16:], checksum(from, to, segment))
	address := to.Addr().As4()
	apptest.Must(t, unix.Sendto(fd, segment, 0, &unix.SockaddrInet4{Addr: address}))
}

// checksum is TCP's, over a pseudo header and the segment.
func checksum(from, to netip.AddrPort, segment []byte) uint16 {
	a, b := from.Addr().As4(), to.Addr().As4()
	all := append(append(a[:], b[:]...), 0, unix.IPPROTO_TCP)
	all = append(binary.BigEndian.AppendUint16(all, uint16(len(segment))), segment...)
	if len(all)%2 == 1 {
		all = append(all, 0)
	}
	sum := uint32(0)
	for i := 0; i < len(all); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(all[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
