package steering

import (
	"maps"
	"slices"

	"golang.org/x/sys/unix"
)

// What include/uapi/linux/filter.h defines and x/sys does not. The data of a reuseport program begins behind the TCP
// header, so ports are found from the network header on.
const (
	filterNetwork = 0xfff00000        // SKF_NET_OFF
	filterRandom  = 0xfffff000 + 0x38 // SKF_AD_OFF + SKF_AD_RANDOM
	ipv6Header    = 40
	noIndex       = 0xffffffff
)

// selector makes the program that answers each new connection with the index of the socket that gets it: by chance one
// of the selected, or one of those that a probe is for, known by its source port. With nothing to choose from it
// leaves the choice to the kernel, which takes any socket of the group.
func selector(selected []int, probes map[uint16][]int) []unix.SockFilter {
	var program []unix.SockFilter
	if len(probes) > 0 {
		program = append(program, loadSourcePort...)
	}
	for _, port := range slices.Sorted(maps.Keys(probes)) {
		program = append(program, whereEqual(uint32(port), spread(probes[port]))...)
	}
	return append(program, spread(selected)...)
}

// loadSourcePort serves both families: the group of a dual-stack socket gets packets of both.
var loadSourcePort = []unix.SockFilter{
	{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: filterNetwork},
	{Code: unix.BPF_ALU | unix.BPF_RSH | unix.BPF_K, K: 4},
	{Code: unix.BPF_LDX | unix.BPF_W | unix.BPF_IMM, K: ipv6Header},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: 6, Jt: 1},
	{Code: unix.BPF_LDX | unix.BPF_B | unix.BPF_MSH, K: filterNetwork},
	{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_IND, K: filterNetwork},
}

// whereEqual runs the block if the accumulator has the value, and what follows if not. A conditional jump goes at most
// 255 instructions far; the unconditional one has no such limit.
func whereEqual(value uint32, block []unix.SockFilter) []unix.SockFilter {
	return append([]unix.SockFilter{
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: value, Jt: 1},
		{Code: unix.BPF_JMP | unix.BPF_JA, K: uint32(len(block))},
	}, block...)
}

// spread ends the program with one of the indices, each as likely as any other.
func spread(indices []int) []unix.SockFilter {
	switch len(indices) {
	case 0:
		return answer(noIndex)
	case 1:
		return answer(uint32(indices[0]))
	}
	block := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: filterRandom},
		{Code: unix.BPF_ALU | unix.BPF_MOD | unix.BPF_K, K: uint32(len(indices))},
	}
	last := len(indices) - 1
	for i, index := range indices[:last] {
		block = append(block, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: uint32(i), Jf: 1})
		block = append(block, answer(uint32(index))...)
	}
	return append(block, answer(uint32(indices[last]))...)
}

func answer(index uint32) []unix.SockFilter {
	return []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: index}}
}
