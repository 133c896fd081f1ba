package farewell

import (
	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

const (
	closing = "Connection: close\r\n"
	// scanLimit is how many bytes of a head are searched for a Connection header. Where it comes later, the client gets two.
	scanLimit = 2048
	// shortestHead is "HTTP/1.1 200 \r\n\r\n", of which a status line that is split over messages is never seen whole.
	shortestHead = 17
)

// Fields of struct sk_msg_md (include/uapi/linux/bpf.h).
const (
	messageData = 0
	messageEnd  = 8
	messageSize = 68
	messageSock = 72
)

// Registers of the program that hold beyond calls.
const (
	rData   = asm.R7 // the beginning of the message
	rEnd    = asm.R8
	rRecord = asm.R9
)

const stackCookie = -8

// answers is the program that sees each message that the app sends on a connection in the map, before it goes into the
// stream (SK_MSG, tcp_bpf_sendmsg in net/ipv4/tcp_bpf.c). The head of the answer to the one request that is open gets
// a Connection: close. Everything else passes as it is.
func answers(names, records *ebpf.Map) asm.Instructions {
	var a assembler
	findRecord(&a, names, records)
	loadHead(&a)
	recogniseHead(&a)
	decideWhether(&a)
	scanHead(&a)
	overwriteValue(&a)
	insertBeforeValue(&a)
	insertLine(&a)
	joinPieces(&a)
	endAnswers(&a)
	return a.program
}

// findRecord goes by the cookie in the socket's storage: this kind of program may not ask for the cookie.
func findRecord(a *assembler, names, records *ebpf.Map) {
	a.block("begin",
		asm.Mov.Reg(rContext, asm.R1),
		asm.LoadMapPtr(asm.R1, names.FD()),
		asm.LoadMem(asm.R2, rContext, messageSock, asm.DWord),
		asm.JEq.Imm(asm.R2, 0, "pass"),
		asm.Mov.Imm(asm.R3, 0),
		asm.Mov.Imm(asm.R4, 0), // do not create
		asm.FnSkStorageGet.Call(),
		asm.JEq.Imm(asm.R0, 0, "pass"),
		asm.LoadMem(asm.R1, asm.R0, 0, asm.DWord),
		asm.StoreMem(asm.R10, stackCookie, asm.R1, asm.DWord),
		lookUp(records, stackCookie, "pass"),
		asm.Mov.Reg(rRecord, asm.R0),
		increment(rRecord, fieldSent),
		asm.LoadMem(asm.R1, rRecord, fieldTunnel, asm.Word),
		asm.JNE.Imm(asm.R1, 0, "pass"),
	)
}

// loadHead makes the part of the message that is looked at one piece of memory. A message begins with a piece that is
// too short, or that belongs to somebody else and may only be looked at as a copy (pages of a file in sendfile, for which
// the kernel gives data == data_end).
func loadHead(a *assembler) {
	a.block("load",
		pointers(),
		asm.LoadMem(asm.R3, rContext, messageSize, asm.Word),
		asm.JLT.Imm(asm.R3, shortestHead, "pass"),
		asm.JLT.Imm(asm.R3, scanLimit, "enough?"),
		asm.Mov.Imm(asm.R3, scanLimit),
	)
	a.block("enough?",
		unless(4, "pull"),
		// Four bytes rule out nearly all that is no head, before anything is copied.
		asm.LoadMem(asm.R1, rData, 0, asm.Word),
		asm.JNE.Imm(asm.R1, text("HTTP"), "pass"),
	)
	a.block("pull",
		asm.Mov.Reg(asm.R1, rContext),
		asm.Mov.Imm(asm.R2, 0),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnMsgPullData.Call(), // it copies only what is not in one piece; without memory the next look finds too little
		pointers(),
	)
}

func pointers() asm.Instructions {
	return asm.Instructions{
		asm.LoadMem(rData, rContext, messageData, asm.DWord),
		asm.LoadMem(rEnd, rContext, messageEnd, asm.DWord),
	}
}

// unless goes to the label if there are less than n bytes: the verifier wants to see it before each access.
func unless(n int32, label string) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(asm.R1, rData),
		asm.Add.Imm(asm.R1, n),
		asm.JGT.Reg(asm.R1, rEnd, label),
	}
}

// recogniseHead lets through the beginning of a final response of HTTP/1. 1xx is no answer yet; 101, and 200 to CONNECT,
// which all proxies call "Connection established", are the end of HTTP on this connection.
func recogniseHead(a *assembler) {
	a.block("head?",
		unless(shortestHead, "pass"),
		asm.LoadMem(asm.R1, rData, 0, asm.Word),
		asm.JNE.Imm(asm.R1, text("HTTP"), "pass"),
		asm.LoadMem(asm.R1, rData, 4, asm.Word),
		asm.JEq.Imm(asm.R1, text("/1.1"), "status"),
		asm.JNE.Imm(asm.R1, text("/1.0"), "pass"),
	)
	a.block("status",
		asm.LoadMem(asm.R1, rData, 9, asm.Word),
		asm.JEq.Imm(asm.R1, text("101 "), "tunnel"),
		asm.LoadMem(asm.R1, rData, 8, asm.Byte),
		asm.JNE.Imm(asm.R1, ' ', "pass"),
		asm.LoadMem(asm.R1, rData, 9, asm.Byte),
		asm.JLT.Imm(asm.R1, '2', "pass"),
		asm.JGT.Imm(asm.R1, '5', "pass"),
		asm.LoadMem(asm.R1, rData, 13, asm.Word),
		asm.Or.Imm(asm.R1, 0x20202020),
		asm.JEq.Imm(asm.R1, text("conn"), "tunnel"),
	)
}

// decideWhether goes on only if this answers the one open request. Closing would lose a further one that the client has sent
// already. What nobody has asked for is no answer, whatever it looks like; but the first may answer what came before the
// announcement. No request counts as open after an answer: one whose answer was not recognised would be for ever, and
// of several only the last may say anything.
func decideWhether(a *assembler) {
	a.block("which",
		asm.LoadMem(asm.R2, rRecord, fieldRequests, asm.Word),
		asm.LoadMem(asm.R3, rRecord, fieldAnswered, asm.Word),
		asm.JNE.Reg(asm.R2, asm.R3, "asked"),
		asm.JNE.Imm(asm.R2, 0, "pass"),
		asm.LoadMem(asm.R1, rRecord, fieldArrived, asm.Word),
		asm.JNE.Imm(asm.R1, 0, "pass"),
		increment(rRecord, fieldRequests),
		asm.Mov.Imm(asm.R2, 1),
	)
	a.block("asked",
		asm.StoreMem(rRecord, fieldAnswered, asm.R2, asm.Word),
		asm.Add.Imm(asm.R3, 1),
		asm.JNE.Reg(asm.R2, asm.R3, "pass"),
		asm.LoadMem(asm.R1, rRecord, fieldMany, asm.Word),
		asm.JNE.Imm(asm.R1, 0, "pass"),
	)
}

// The scan does no calls, and has these registers to itself.
const (
	rAt   = asm.R4 // offset of the next byte
	rNext = asm.R5 // its address
)

// scanHead looks for the line after the status line, and for a Connection header. The place that it finds is kept in the
// record and not in a register: there the verifier would follow each value that it can have through the rest of the
// loop, and give up at a million instructions. A byte that is no line feed is handled first for the same reason.
func scanHead(a *assembler) {
	a.block("scan",
		asm.StoreImm(rRecord, fieldInsert, 0, asm.Word),
		asm.Mov.Imm(rAt, 12),
		asm.Mov.Reg(rNext, rData),
		asm.Add.Imm(rNext, 12),
	)
	a.block("byte",
		asm.JGE.Imm(rAt, scanLimit, "insert"),
		asm.Mov.Reg(asm.R1, rNext),
		asm.Add.Imm(rNext, 1),
		asm.JGT.Reg(rNext, rEnd, "insert"),
		asm.Add.Imm(rAt, 1),
		asm.LoadMem(asm.R3, asm.R1, 0, asm.Byte),
		asm.JEq.Imm(asm.R3, '\n', "feed"),
		asm.Ja.Label("byte"),
	)
	a.block("feed",
		asm.LoadMem(asm.R3, rRecord, fieldInsert, asm.Word),
		asm.JNE.Imm(asm.R3, 0, "line"),
		asm.StoreMem(rRecord, fieldInsert, rAt, asm.Word),
	)
	// R1 is at the line feed. "Connection: keep-alive" and the return after it are 23 bytes; a Connection header that is
	// shorter and the last line of the message has no more to say than close.
	a.block("line",
		asm.Mov.Reg(asm.R2, asm.R1),
		asm.Add.Imm(asm.R2, 1+23),
		asm.JGT.Reg(asm.R2, rEnd, "last line"),
		asm.LoadMem(asm.R3, asm.R1, 1, asm.Half),
		asm.JEq.Imm(asm.R3, text("\r\n"), "insert"), // the end of the head
		matchName(),
		asm.LoadMem(asm.R3, asm.R1, 13, asm.Word),
		asm.Or.Imm(asm.R3, 0x20202020),
		asm.JEq.Imm(asm.R3, text("clos"), "said"),
		asm.JEq.Imm(asm.R3, text("keep"), "overwrite"),
		asm.Ja.Label("other value"),
	)
	a.block("last line",
		asm.Mov.Reg(asm.R2, asm.R1),
		asm.Add.Imm(asm.R2, 1+16),
		asm.JGT.Reg(asm.R2, rEnd, "byte"),
		asm.LoadMem(asm.R3, asm.R1, 1, asm.Half),
		asm.JEq.Imm(asm.R3, text("\r\n"), "insert"),
		matchName(),
		asm.LoadMem(asm.R3, asm.R1, 13, asm.Word),
		asm.Or.Imm(asm.R3, 0x20202020),
		asm.JEq.Imm(asm.R3, text("clos"), "said"),
		asm.Ja.Label("byte"),
	)
}

// matchName goes on with the scan unless the line after R1 begins with "Connection: ", in any case of letters. Or-ing
// with 0x20 makes small letters of capitals, and of nothing else that a name has.
func matchName() asm.Instructions {
	var match asm.Instructions
	for i, part := range []string{"conn", "ecti", "on: "} {
		match = append(match,
			asm.LoadMem(asm.R3, asm.R1, int16(1+4*i), asm.Word),
			asm.Or.Imm(asm.R3, 0x20202020),
			asm.JNE.Imm(asm.R3, text(part), "byte"),
		)
	}
	return match
}

// overwriteValue writes "close" and spaces over "keep-alive", which is the whole value; R1 is at the line feed before.
func overwriteValue(a *assembler) {
	a.block("overwrite",
		asm.LoadMem(asm.R3, asm.R1, 17, asm.Word),
		asm.Or.Imm(asm.R3, 0x20202020),
		asm.JNE.Imm(asm.R3, text("-ali"), "other value"),
		asm.LoadMem(asm.R3, asm.R1, 21, asm.Half),
		asm.Or.Imm(asm.R3, 0x2020),
		asm.JNE.Imm(asm.R3, text("ve"), "other value"),
		asm.LoadMem(asm.R3, asm.R1, 23, asm.Byte),
		asm.JNE.Imm(asm.R3, '\r', "other value"),
		asm.StoreImm(asm.R1, 13, int64(text("clos")), asm.Word),
		asm.StoreImm(asm.R1, 17, int64(text("e   ")), asm.Word),
		asm.StoreImm(asm.R1, 21, int64(text("  ")), asm.Half),
		asm.Ja.Label("said"),
	)
}

const closeFirst = "close, "

// insertBeforeValue puts "close, " before a value that is something else, such as the names of other headers.
func insertBeforeValue(a *assembler) {
	a.block("other value",
		asm.Add.Imm(rAt, int32(len("Connection: "))),
		asm.StoreMem(rRecord, fieldInsert, rAt, asm.Word),
		asm.Ja.Label("insert close"), // where the verifier has been with another offset it need not go again
	)
	a.block("insert close", push(closeFirst))
}

// insertLine puts the header after the status line. A message that ends before is none that is understood.
func insertLine(a *assembler) {
	a.block("insert",
		asm.LoadMem(asm.R2, rRecord, fieldInsert, asm.Word),
		asm.JEq.Imm(asm.R2, 0, "pass"),
		push(closing),
	)
}

// push inserts a text at the offset that is in the record. Without memory the message goes as it is.
// The second call brings no more than the address of the new piece, which is in one page and so needs no copy
// (bpf_msg_pull_data in net/core/filter.c). Should it fail, nothing is left but to refuse the message: it has a hole.
func push(line string) asm.Instructions {
	program := asm.Instructions{
		asm.LoadMem(asm.R2, rRecord, fieldInsert, asm.Word),
		asm.Mov.Reg(asm.R1, rContext),
		asm.Mov.Imm(asm.R3, int32(len(line))),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnMsgPushData.Call(),
		asm.JNE.Imm(asm.R0, 0, "pass"),
		asm.Mov.Reg(asm.R1, rContext),
		asm.LoadMem(asm.R2, rRecord, fieldInsert, asm.Word),
		asm.Mov.Reg(asm.R3, asm.R2),
		asm.Add.Imm(asm.R3, int32(len(line))),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnMsgPullData.Call(),
		asm.JNE.Imm(asm.R0, 0, "refuse"),
	}
	program = append(program, pointers()...)
	program = append(program, unless(int32(len(line)), "refuse")...)
	for i := range line {
		program = append(program, asm.StoreImm(rData, int16(i), int64(line[i]), asm.Byte))
	}
	return append(program, asm.Ja.Label("join"))
}

// joinPieces makes one piece again of the three that the message is in now. TCP sends each by itself (tcp_bpf_push in
// net/ipv4/tcp_bpf.c), and Nagle's algorithm would let the second wait for the client's acknowledgement of the first. R3 is
// the offset of the byte after the line, so that the piece behind belongs to it. Without memory the message goes as it is.
func joinPieces(a *assembler) {
	a.block("join",
		asm.LoadMem(asm.R3, rRecord, fieldInsert, asm.Word),
		asm.Add.Imm(asm.R3, int32(len(closing))+1),
		asm.LoadMem(asm.R1, rContext, messageSize, asm.Word),
		asm.JLE.Reg(asm.R3, asm.R1, "join now"),
		asm.Mov.Reg(asm.R3, asm.R1),
	)
	a.block("join now",
		asm.Mov.Reg(asm.R1, rContext),
		asm.Mov.Imm(asm.R2, 0),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnMsgPullData.Call(),
	)
}

const (
	skDrop = 0
	skPass = 1
)

func endAnswers(a *assembler) {
	a.block("said", increment(rRecord, fieldSaid))
	a.block("pass", asm.Mov.Imm(asm.R0, skPass), asm.Return())
	a.block("tunnel", asm.StoreImm(rRecord, fieldTunnel, 1, asm.Word), asm.Ja.Label("pass"))
	a.block("refuse", asm.Mov.Imm(asm.R0, skDrop), asm.Return())
}
