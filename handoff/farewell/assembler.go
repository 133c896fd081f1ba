package farewell

import (
	"encoding/binary"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// assembler puts a program together from blocks, each of which has a label.
type assembler struct{ program asm.Instructions }

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
