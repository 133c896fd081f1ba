package farewell

import (
	"encoding/binary"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// Registers of the filter that hold beyond calls; absolute and indirect loads leave no others.
const (
	rAtByte  = asm.R7 // offset in the segment
	rLength  = asm.R8 // of the segment
	rCounted = asm.R9 // the connection's record
)

const (
	stackName  = -8
	stackZero  = -12
	stackLease = -24
)

// Where the TCP header has things.
const (
	headerSequence = 4
	headerSize     = 12 // in four-byte words, the upper half of the byte
)

// bodyless are the methods of requests that end with their head; withBody may have more. What begins with neither is no
// request that is understood: its answer is never touched.
var (
	bodyless = []string{"GET ", "HEAD", "OPTI"}
	withBody = []string{"POST", "PUT ", "PATC", "DELE"}
)

// requests is the filter that sees each segment that comes for a connection, beginning with its TCP header and before TCP
// itself does (tcp_filter in net/ipv4/tcp_ipv4.c and tcp_ipv6.c). It counts what came, and requests by their
// beginnings. While the lease runs, it drops all that comes for connections that are held but the client's end: whoever sends data tries
// again after 200 ms or more. When grace has died, the lease ends by itself and everything comes through.
func requests(records, held, lease, search *ebpf.Map) asm.Instructions {
	var a assembler
	findConnection(&a, records)
	holdBack(&a, held, lease)
	countRequest(&a)
	lookBehind(&a, search)
	a.block("keep", asm.Mov.Imm(asm.R0, -1), asm.Return())
	findEmptyLine(&a)
	return a.program
}

// findConnection lets all through that is not a known connection's.
func findConnection(a *assembler, records *ebpf.Map) {
	a.function("requests",
		asm.Mov.Reg(rContext, asm.R1),
		asm.LoadMem(rLength, rContext, 0, asm.Word),
		asm.LoadAbs(headerSize, asm.Byte),
		asm.RSh.Imm(asm.R0, 4),
		asm.LSh.Imm(asm.R0, 2),
		asm.Mov.Reg(rAtByte, asm.R0),
		asm.Mov.Reg(asm.R1, rContext),
		asm.FnGetSocketCookie.Call(),
		asm.StoreMem(asm.R10, stackName, asm.R0, asm.DWord),
		lookUp(records, stackName, "keep"),
		asm.Mov.Reg(rCounted, asm.R0),
	)
}

// holdBack drops. What is dropped is not counted: nobody has got it.
func holdBack(a *assembler, held, lease *ebpf.Map) {
	a.block("lease",
		asm.StoreImm(asm.R10, stackZero, 0, asm.Word),
		lookUp(lease, stackZero, "arrived"),
		asm.LoadMem(asm.R1, asm.R0, 0, asm.DWord),
		asm.JEq.Imm(asm.R1, 0, "arrived"),
		asm.StoreMem(asm.R10, stackLease, asm.R1, asm.DWord),
		asm.FnKtimeGetNs.Call(),
		asm.LoadMem(asm.R1, asm.R10, stackLease, asm.DWord),
		asm.JGE.Reg(asm.R0, asm.R1, "arrived"),
		lookUp(held, stackName, "arrived"),
		asm.JLT.Reg(rAtByte, rLength, "drop"),
		asm.LoadAbs(headerFlags, asm.Byte),
		asm.And.Imm(asm.R0, flagFIN|flagRST),
		asm.JNE.Imm(asm.R0, 0, "keep"),
	)
	a.block("drop", asm.Mov.Imm(asm.R0, 0), asm.Return())
	a.block("arrived",
		asm.JGE.Reg(rAtByte, rLength, "keep"), // no data
		increment(rCounted, fieldArrived),
	)
}

// countRequest knows a request by its method. One that TCP brings again counts once, by its number in the stream.
func countRequest(a *assembler) {
	parts := []any{
		asm.Mov.Reg(asm.R1, rAtByte),
		asm.Add.Imm(asm.R1, 4),
		asm.JGT.Reg(asm.R1, rLength, "keep"),
		asm.LoadInd(asm.R0, rAtByte, 0, asm.Word),
	}
	for _, method := range bodyless {
		parts = append(parts, asm.JEq.Imm(asm.R0, network(method), "alone?"))
	}
	for _, method := range withBody {
		parts = append(parts, asm.JEq.Imm(asm.R0, network(method), "count"))
	}
	parts = append(parts,
		asm.JNE.Imm(asm.R0, network("CONN"), "keep"),
		asm.StoreImm(rCounted, fieldTunnel, 1, asm.Word),
		asm.Ja.Label("keep"),
	)
	a.block("request?", parts...)
	a.block("count",
		asm.LoadAbs(headerSequence, asm.Word),
		asm.LoadMem(asm.R1, rCounted, fieldLast, asm.Word),
		asm.JEq.Imm(asm.R1, 0, "first"),
		asm.Mov.Reg(asm.R2, asm.R0),
		asm.Sub.Reg32(asm.R2, asm.R1),
		asm.JSLE.Imm32(asm.R2, 0, "keep"),
	)
	a.block("first",
		asm.StoreMem(rCounted, fieldLast, asm.R0, asm.Word),
		increment(rCounted, fieldRequests),
		asm.Ja.Label("keep"),
	)
}

// network is four letters as the kernel loads them from a packet.
func network(s string) int32 { return int32(binary.BigEndian.Uint32([]byte(s))) }

// search is what the search for the end of a head works on: a copy of the segment's beginning, since to load a word of the segment
// itself takes a call. Each processor has one, and handles one segment at a time.
const (
	searchText    = 0
	searchUpTo    = scanLimit + 8 // how long the text is: after it come eight bytes that are no line feed
	searchScanned = searchUpTo + 4
	searchSize    = searchScanned + 4
)

const stackSearch = -32

// lookBehind marks a connection on which more comes behind the empty line of a request without a body: that is another
// request, and its client would lose it if the first answer said close.
func lookBehind(a *assembler, search *ebpf.Map) {
	a.block("alone?",
		lookUp(search, stackZero, "count"),
		asm.StoreMem(asm.R10, stackSearch, asm.R0, asm.DWord),
		asm.StoreImm(asm.R0, searchScanned, 0, asm.Word),
		asm.Mov.Reg(asm.R4, rLength),
		asm.Sub.Reg(asm.R4, rAtByte),
		asm.JLE.Imm(asm.R4, scanLimit, "copy"),
		asm.Mov.Imm(asm.R4, scanLimit),
	)
	a.block("copy",
		asm.StoreMem(asm.R0, searchUpTo, asm.R4, asm.Word),
		// Read back it is one number to the verifier, and not one of each way to here: such would take CAP_PERFMON.
		asm.LoadMem(asm.R4, asm.R0, searchUpTo, asm.Word),
		asm.JLT.Imm(asm.R4, 1, "count"), // to compare with 0 would tell the verifier nothing before Linux 6.3
		asm.JGT.Imm(asm.R4, scanLimit, "count"),
		asm.Mov.Reg(asm.R3, asm.R0),
		asm.Add.Reg(asm.R0, asm.R4),
		asm.Mov.Imm(asm.R1, 0),
		asm.StoreMem(asm.R0, searchText, asm.R1, asm.DWord),
		asm.Mov.Reg(asm.R1, rContext),
		asm.Mov.Reg(asm.R2, rAtByte),
		asm.FnSkbLoadBytes.Call(),
		asm.JNE.Imm(asm.R0, 0, "count"),
		loop("find_empty_line", stackSearch),
		asm.LoadMem(asm.R1, asm.R10, stackSearch, asm.DWord),
		asm.LoadMem(asm.R2, asm.R1, searchScanned, asm.Word),
		asm.LoadMem(asm.R3, asm.R1, searchUpTo, asm.Word),
		asm.JGE.Reg(asm.R2, asm.R3, "count"),
		asm.StoreImm(rCounted, fieldMany, 1, asm.Word),
		asm.Ja.Label("count"),
	)
}

// findEmptyLine goes on by eight bytes or behind the next line feed. It returns 1 behind the empty line, and at the end.
func findEmptyLine(a *assembler) {
	a.function("find_empty_line",
		asm.LoadMem(asm.R3, asm.R2, 0, asm.DWord),
		asm.LoadMem(asm.R1, asm.R3, searchScanned, asm.Word),
		asm.LoadMem(asm.R2, asm.R3, searchUpTo, asm.Word),
		asm.JGE.Reg(asm.R1, asm.R2, "end"),
		asm.JGE.Imm(asm.R1, scanLimit, "end"), // which the verifier cannot conclude
		asm.Mov.Reg(asm.R4, asm.R3),
		asm.Add.Reg(asm.R4, asm.R1),
		asm.LoadMem(asm.R0, asm.R4, searchText, asm.DWord),
		lineFeeds(asm.R2, asm.R0, asm.R5),
		asm.JNE.Imm(asm.R2, 0, "line feed"),
		asm.Add.Imm(asm.R1, 8),
		asm.Ja.Label("further"),
	)
	a.block("line feed",
		firstOf(asm.R2, asm.R0),
		asm.Add.Reg(asm.R4, asm.R2),
		asm.Add.Reg(asm.R1, asm.R2),
		asm.Add.Imm(asm.R1, 1),
		asm.LoadMem(asm.R0, asm.R4, 1, asm.Half),
		asm.JNE.Imm(asm.R0, text("\r\n"), "further"),
		asm.Add.Imm(asm.R1, 2),
		asm.StoreMem(asm.R3, searchScanned, asm.R1, asm.Word),
	)
	a.block("end", asm.Mov.Imm(asm.R0, 1), asm.Return())
	a.block("further",
		asm.StoreMem(asm.R3, searchScanned, asm.R1, asm.Word),
		asm.Mov.Imm(asm.R0, 0),
		asm.Return(),
	)
}
