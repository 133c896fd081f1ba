package steering

import (
	"encoding/binary"
	"maps"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
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
			if i.K != filterRandom {
				t.Fatalf("a load from %#x", i.K)
			}
			a = random
		case unix.BPF_LDX | unix.BPF_W | unix.BPF_IMM:
			x = i.K
		case unix.BPF_LDX | unix.BPF_B | unix.BPF_MSH:
			x = 4 * uint32(packet[at(i.K)]&15)
		case unix.BPF_ALU | unix.BPF_RSH | unix.BPF_K:
			a >>= i.K
		case unix.BPF_ALU | unix.BPF_MOD | unix.BPF_K:
			a %= i.K
		case unix.BPF_JMP | unix.BPF_JA:
			pc += int(i.K)
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			if a == i.K {
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
			program := selector(test.selected, test.probes)
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
