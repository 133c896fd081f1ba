package farewell

import (
	"encoding/binary"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
)

// assembler puts a program together from blocks, each of which has a label.
type assembler struct{ program asm.Instructions }

// function begins a function. The kernel wants to know of each that it returns an int, if bpf_loop is to call one.
func (a *assembler) function(name string, parts ...any) {
	begin := len(a.program)
	a.block(name, parts...)
	a.program[begin] = btf.WithFuncMetadata(a.program[begin], &btf.Func{
		Name:    name, // as in C
		Type:    &btf.FuncProto{Return: &btf.Int{Name: "int", Size: 4, Encoding: btf.Signed}},
		Linkage: btf.StaticFunc,
	})
}

// loop calls a function until it returns 1, which has to be within scanLimit times. The function finds the address of what
// is at an offset of the stack in R2. The verifier follows it once. Through a loop of jumps it would go as often as the program
// may, and that took 0.4 s of a processor.
func loop(function string, frame int16) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Imm(asm.R1, scanLimit),
		address(asm.R2, function),
		asm.Mov.Reg(asm.R3, asm.R10),
		asm.Add.Imm(asm.R3, int32(frame)),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnLoop.Call(),
	}
}

func address(to asm.Register, function string) asm.Instruction {
	return asm.Instruction{OpCode: asm.LoadImmOp(asm.DWord), Dst: to, Src: asm.PseudoFunc, Constant: -1}.WithReference(function)
}

// block adds instructions under a label, to which they may be jumped to; what does not jump goes on with the next block.
func (a *assembler) block(label string, parts ...any) {
	var block asm.Instructions
	for _, part := range parts {
		switch part := part.(type) {
		case asm.Instruction:
			block = append(block, part)
		case asm.Instructions:
			block = append(block, part...)
		}
	}
	block[0] = block[0].WithSymbol(label)
	a.program = append(a.program, block...)
}

// text is a piece of a message as the processor loads it from memory.
func text(s string) int32 {
	if len(s) == 2 {
		return int32(binary.NativeEndian.Uint16([]byte(s)))
	}
	return int32(binary.NativeEndian.Uint32([]byte(s)))
}

// Register in which both programs keep their context: absolute loads want it there.
const rContext = asm.R6

// lookUp looks for the key at an offset of the stack and leaves the address of its value in R0. Without a value it goes
// to the label.
func lookUp(m *ebpf.Map, key int16, missing string) asm.Instructions {
	return asm.Instructions{
		asm.LoadMapPtr(asm.R1, m.FD()),
		asm.Mov.Reg(asm.R2, asm.R10),
		asm.Add.Imm(asm.R2, int32(key)),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, missing),
	}
}

// increment adds one to a field of a connection's record, of which the other program may read and write other fields.
func increment(record asm.Register, field int16) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Imm(asm.R1, 1),
		add(record, asm.R1, field),
	}
}

// add is atomic.
func add(record, value asm.Register, field int16) asm.Instruction {
	ins := asm.StoreXAdd(record, value, asm.Word)
	ins.Offset = field
	return ins
}

// eachByte is a number that has the same in each of its eight bytes.
func eachByte(b uint64) int64 { return int64(b * 0x0101010101010101) }

// lineFeeds sets in found the upper bit of the first byte of the eight in word that is a line feed, and maybe of some behind it;
// none if there is no line feed. Both registers are used up.
//
// A byte that is zero is the only one that has the upper bit when 1 was taken from it, and had not before; what it borrows
// reaches bytes behind it (graphics.stanford.edu/~seander/bithacks.html#ZeroInWord).
func lineFeeds(found, word, spare asm.Register) asm.Instructions {
	return asm.Instructions{
		asm.HostTo(asm.LE, word, asm.DWord), // the first byte is the lowest
		asm.LoadImm(spare, eachByte('\n'), asm.DWord),
		asm.Xor.Reg(word, spare),
		asm.LoadImm(spare, eachByte(1), asm.DWord),
		asm.Mov.Reg(found, word),
		asm.Sub.Reg(found, spare),
		asm.Xor.Imm(word, -1),
		asm.And.Reg(found, word),
		asm.LoadImm(spare, -0x7f7f7f7f7f7f7f80, asm.DWord), // eachByte(0x80)
		asm.And.Reg(found, spare),
	}
}

// firstOf makes the number of the first byte, from 0 on, of what lineFeeds has found.
func firstOf(found, spare asm.Register) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(spare, found),
		asm.Neg.Imm(spare, 0),
		asm.And.Reg(found, spare), // the lowest bit alone: 0x80 << 8*number
		asm.RSh.Imm(found, 7),
		asm.LoadImm(spare, 0x0001020304050607, asm.DWord),
		asm.Mul.Reg(found, spare), // moves the byte that is the number to the top
		asm.RSh.Imm(found, 56),
		asm.And.Imm(found, 7), // as it is; the verifier does not follow multiplications
	}
}
