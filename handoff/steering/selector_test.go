package steering

import (
	"encoding/binary"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gracerun/grace/internal/binomial"
)

// run is the part of the kernel's interpreter that selectors use. The packet begins with the IP header.
func run(t *testing.T, program []unix.SockFilter, packet []byte, random uint32) uint32 {
	t.Helper()
	var a, x uint32
	at := func(k uint32) uint32 { return k - filterNetwork }
	for pc := 0; ; pc++ {
		if pc >= len(program) {
			t.Fatal("the program has no end")
		}
		i := program[pc]
		switch i.Code {
		case unix.BPF_RET | unix.BPF_K:
			return i.K
		case unix.BPF_LD | unix.BPF_B | unix.BPF_ABS:
			a = uint32(packet[at(i.K)])
		case unix.BPF_LD | unix.BPF_H | unix.BPF_IND:
			a = uint32(binary.BigEndian.Uint16(packet[at(i.K+x):]))
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			a = random
			if i.K != filterRandom {
				a = binary.BigEndian.Uint32(packet[at(i.K):])
			}
		case unix.BPF_LDX | unix.BPF_W | unix.BPF_IMM:
			x = i.K
		case unix.BPF_LDX | unix.BPF_B | unix.BPF_MSH:
			x = 4 * uint32(packet[at(i.K)]&15)
		case unix.BPF_ALU | unix.BPF_RSH | unix.BPF_K:
			a >>= i.K
		case unix.BPF_ALU | unix.BPF_MOD | unix.BPF_K:
			a %= i.K
		case unix.BPF_ALU | unix.BPF_MUL | unix.BPF_K:
			a *= i.K
		case unix.BPF_ALU | unix.BPF_XOR | unix.BPF_X:
			a ^= x
		case unix.BPF_MISC | unix.BPF_TAX:
			x = a
		case unix.BPF_JMP | unix.BPF_JA:
			pc += int(i.K)
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			if a == i.K {
				pc += int(i.Jt)
			} else {
				pc += int(i.Jf)
			}
		case unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K:
			if a >= i.K {
				pc += int(i.Jt)
			} else {
				pc += int(i.Jf)
			}
		default:
			t.Fatalf("instruction %#x", i.Code)
		}
	}
}

func packetFrom(version byte, words int, port uint16) []byte {
	packet := make([]byte, 80)
	packet[0] = version<<4 | byte(words)
	header := 4 * words
	if version == 6 {
		header = ipv6Header
	}
	binary.BigEndian.PutUint16(packet[header:], port)
	return packet
}

func TestSelector(t *testing.T) {
	many := make([]int, 300)
	for i := range many {
		many[i] = 2 * i
	}
	probes := map[uint16][]int{1: {7}, 258: {8, 9}, 65535: many}
	tests := []struct {
		name     string
		selected []int
		probes   map[uint16][]int
		packet   []byte
		want     []int // nil stands for the kernel's choice
	}{
		{"one", []int{3}, nil, packetFrom(4, 5, 1), []int{3}},
		{"some", []int{0, 2, 5}, nil, packetFrom(4, 5, 1), []int{0, 2, 5}},
		{"many", many, nil, packetFrom(6, 0, 1), many},
		{"none", nil, nil, packetFrom(4, 5, 1), nil},
		{"probe", []int{3}, probes, packetFrom(4, 5, 1), []int{7}},
		{"probe of several", []int{3}, probes, packetFrom(4, 5, 258), []int{8, 9}},
		{"probe of many", []int{3}, probes, packetFrom(4, 5, 65535), many},
		{"probe with IP options", []int{3}, probes, packetFrom(4, 15, 1), []int{7}},
		{"probe by IPv6", []int{3}, probes, packetFrom(6, 0, 1), []int{7}},
		{"traffic class and version", []int{3}, probes, packetFrom(6, 15, 258), []int{8, 9}},
		{"no probe", []int{3, 4}, probes, packetFrom(4, 5, 2), []int{3, 4}},
		{"port in other byte order", []int{3}, probes, packetFrom(4, 5, 1<<8), []int{3}},
		{"no probe by IPv6", []int{3}, probes, packetFrom(6, 0, 2), []int{3}},
		{"probe, nothing selected", nil, probes, packetFrom(4, 5, 1), []int{7}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			program := selector(choice{selected: test.selected}, test.probes)
			got := make(map[int]int)
			for random := range uint32(3 * len(many)) {
				index := run(t, program, test.packet, random)
				if index == noIndex {
					index = 1 << 30
				}
				got[int(index)]++
			}
			want := test.want
			if want == nil {
				want = []int{1 << 30}
			}
			if indices := slices.Sorted(maps.Keys(got)); !slices.Equal(indices, want) {
				t.Fatalf("chose %v, want %v", indices, want)
			}
			for index, n := range got {
				if n != 3*len(many)/len(want) {
					t.Errorf("%d was chosen %d times", index, n)
				}
			}
		})
	}
}

// However many sockets there are, a share is that of the number below which it lies, and probes come first.
func TestSelectorOfAShare(t *testing.T) {
	many := make([]int, 300)
	for i := range many {
		many[i] = 1000 + i
	}
	for _, share := range []int{1, 500, 9999, 10000} {
		to := choice{selected: []int{1, 2}, beside: many, split: Split{Share: share}}
		program := selector(to, map[uint16][]int{7: {3}})
		for random := range uint32(whole) {
			if got := run(t, program, packetFrom(4, 5, 1), random); got >= 1000 != (int(random) < share) {
				t.Fatalf("share %d, drawn %d: socket %d", share, random, got)
			}
			if got := run(t, program, packetFrom(6, 0, 7), random); got != 3 {
				t.Fatalf("a probe came to %d", got)
			}
		}
	}
}

func packetOf(client netip.Addr) []byte {
	if client.Is4() {
		packet := packetFrom(4, 5, 1)
		copy(packet[ipv4Source:], client.AsSlice())
		return packet
	}
	packet := packetFrom(6, 0, 1)
	copy(packet[ipv6Source:], client.AsSlice())
	return packet
}

// besides are the clients that come to the generation beside the selected one.
func besides(t *testing.T, to Split, clients []netip.Addr) map[netip.Addr]bool {
	t.Helper()
	to.ByClient = true
	program, found := selector(choice{selected: []int{1}, beside: []int{2}, split: to}, nil), map[netip.Addr]bool{}
	for _, client := range clients {
		if run(t, program, packetOf(client), 0) == 2 {
			found[client] = true
		}
	}
	return found
}

// Clients that have addresses side by side are as many as the share says, a share that grows keeps those that it had, and
// another generation begins with other ones.
func TestSelectorByClient(t *testing.T) {
	for name, client := range map[string]func(n int) netip.Addr{
		"neighbours": func(n int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)}) },
		"networks":   func(n int) netip.Addr { return netip.AddrFrom4([4]byte{byte(n >> 8), byte(n), 0, 1}) },
		"IPv6": func(n int) netip.Addr {
			return netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 0, 0, byte(n >> 8), byte(n)})
		},
		"IPv6 sites": func(n int) netip.Addr { return netip.AddrFrom16([16]byte{0x20, 1, byte(n >> 8), byte(n)}) },
	} {
		t.Run(name, func(t *testing.T) {
			var clients []netip.Addr
			for n := range 1 << 14 {
				clients = append(clients, client(n))
			}
			before := map[netip.Addr]bool{}
			for _, share := range []int{100, 500, 2500, 5000, 9999} {
				found := besides(t, Split{Beside: 2, Share: share}, clients)
				low, high := likely(len(clients), float64(share)/whole)
				if len(found) < low || len(found) > high {
					t.Errorf("a share of %d has %d of %d clients", share, len(found), len(clients))
				}
				for client := range before {
					if !found[client] {
						t.Fatalf("%v has lost its generation at a share of %d", client, share)
					}
				}
				before = found
			}
			first, second := besides(t, Split{Beside: 2, Share: 1000}, clients), besides(t, Split{Beside: 3, Share: 1000}, clients)
			maps.DeleteFunc(first, func(client netip.Addr, _ bool) bool { return !second[client] })
			if low, high := likely(len(clients), 0.01); len(first) < low || len(first) > high {
				t.Errorf("%d clients are among the first of two generations", len(first))
			}
		})
	}
	t.Run("one network of IPv6", func(t *testing.T) {
		client := netip.MustParseAddr("2001:db8:0:7::1")
		for share := range whole {
			one := besides(t, Split{Beside: 2, Share: share}, []netip.Addr{client})
			other := besides(t, Split{Beside: 2, Share: share}, []netip.Addr{netip.MustParseAddr("2001:db8:0:7:1:2:3:4")})
			if len(one) != len(other) {
				t.Fatalf("two addresses of a client go apart at a share of %d", share)
			}
		}
	})
}

// likely is how many of n come by chance. A test that asks it a hundred times fails less than once in 10^9 runs.
func likely(n int, p float64) (low, high int) { return binomial.Bounds(n, p, 1e-12) }
