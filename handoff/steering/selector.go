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
	ipv4Source    = 12 // where the header has it, and of IPv6 the second half of its /64
	ipv6Source    = 8
	noIndex       = 0xffffffff
)

// choice is the numbers of the sockets that new connections go to.
type choice struct {
	selected, beside []int
	split            Split // where there are both
}

func (c choice) has(number int) bool {
	return slices.Contains(c.selected, number) || slices.Contains(c.beside, number)
}

func (c choice) without(number int) choice {
	other := func(numbers []int) []int {
		return slices.DeleteFunc(slices.Clone(numbers), func(n int) bool { return n == number })
	}
	c.selected, c.beside = other(c.selected), other(c.beside)
	return c
}

// selector makes the program that answers each new connection with the index of the socket that gets it: one
// of those that a probe is for, known by its source port, or by chance one of the generation that is drawn for it. With
// nothing to choose from it leaves the choice to the kernel, which takes any socket of the group.
func selector(to choice, probes map[uint16][]int) []unix.SockFilter {
	var program []unix.SockFilter
	if len(probes) > 0 {
		program = append(program, loadSourcePort...)
	}
	for _, port := range slices.Sorted(maps.Keys(probes)) {
		program = append(program, whereEqual(uint32(port), spread(probes[port]))...)
	}
	if len(to.beside) > 0 {
		program = append(program, to.split.draw()...)
		program = append(program, whereBelow(uint32(to.split.Share), spread(to.beside))...)
	}
	return append(program, spread(to.selected)...)
}

// draw loads a number below whole: by chance, or always the same for a client.
func (to Split) draw() []unix.SockFilter {
	program := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: filterRandom}}
	if to.ByClient {
		program = hashClient(uint32(to.Beside) * 0x9e3779b1)
	}
	return append(program, unix.SockFilter{Code: unix.BPF_ALU | unix.BPF_MOD | unix.BPF_K, K: whole})
}

// hashClient loads a hash of the source address, or of its /64, which is what one client of IPv6 has. The salt has another
// generation begin with other clients.
func hashClient(salt uint32) []unix.SockFilter {
	prefix := slices.Concat([]unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: filterNetwork + ipv6Source},
		{Code: unix.BPF_ALU | unix.BPF_XOR | unix.BPF_X},
	}, mix, []unix.SockFilter{{Code: unix.BPF_MISC | unix.BPF_TAX}})
	return slices.Concat([]unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: filterNetwork},
		{Code: unix.BPF_ALU | unix.BPF_RSH | unix.BPF_K, K: 4},
		{Code: unix.BPF_LDX | unix.BPF_W | unix.BPF_IMM, K: salt},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: 6, Jf: uint8(len(prefix))},
	}, prefix, []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: filterNetwork + ipv4Source},
		{Code: unix.BPF_ALU | unix.BPF_XOR | unix.BPF_X},
	}, mix)
}

// mix is the end of MurmurHash3: each bit of the accumulator comes to change about half of all.
var mix = slices.Concat(foldRight(16), times(0x85ebca6b), foldRight(13), times(0xc2b2ae35), foldRight(16))

func foldRight(bits uint32) []unix.SockFilter {
	return []unix.SockFilter{
		{Code: unix.BPF_MISC | unix.BPF_TAX},
		{Code: unix.BPF_ALU | unix.BPF_RSH | unix.BPF_K, K: bits},
		{Code: unix.BPF_ALU | unix.BPF_XOR | unix.BPF_X},
	}
}

func times(factor uint32) []unix.SockFilter {
	return []unix.SockFilter{{Code: unix.BPF_ALU | unix.BPF_MUL | unix.BPF_K, K: factor}}
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

// whereBelow runs the block if the accumulator is below the value, and what follows if not.
func whereBelow(value uint32, block []unix.SockFilter) []unix.SockFilter {
	return append([]unix.SockFilter{
		{Code: unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, K: value, Jf: 1},
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
