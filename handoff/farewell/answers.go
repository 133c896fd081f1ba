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
func answers(names, records, http *ebpf.Map) asm.Instructions {
	var a assembler
	findRecord(&a, names, records)
	loadHead(&a)
	recogniseHead(&a)
	decideWhether(&a, http)
	scanHead(&a)
	overwriteValue(&a)
	insertBeforeValue(&a)
	insertLine(&a)
	joinPieces(&a)
	endAnswers(&a)
	scanLine(&a)
	return a.program
}

// findRecord goes by the cookie in the socket's storage: this kind of program may not ask for the cookie.
func findRecord(a *assembler, names, records *ebpf.Map) {
	a.function("answers",
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
// already. What nobody has asked for is no answer, whatever it looks like; but where HTTP/1 is spoken the first may answer what
// came before the announcement. No request counts as open after an answer: one whose answer was not recognised would be for ever, and
// of several only the last may say anything.
func decideWhether(a *assembler, http *ebpf.Map) {
	a.block("which",
		asm.LoadMem(asm.R2, rRecord, fieldRequests, asm.Word),
		asm.LoadMem(asm.R3, rRecord, fieldAnswered, asm.Word),
		asm.JNE.Reg(asm.R2, asm.R3, "asked"),
		asm.JNE.Imm(asm.R2, 0, "pass"),
		asm.LoadMem(asm.R1, rRecord, fieldArrived, asm.Word),
		asm.JNE.Imm(asm.R1, 0, "pass"),
		lookUp(http, stackCookie, "pass"),
		increment(rRecord, fieldRequests),
		asm.Mov.Imm(asm.R2, 1),
		asm.Mov.Imm(asm.R3, 0),
	)
	a.block("asked",
		asm.StoreMem(rRecord, fieldAnswered, asm.R2, asm.Word),
		asm.Add.Imm(asm.R3, 1),
		asm.JNE.Reg(asm.R2, asm.R3, "pass"),
		asm.LoadMem(asm.R1, rRecord, fieldMany, asm.Word),
		asm.JNE.Imm(asm.R1, 0, "pass"),
	)
}

// What the scan finds on the stack.
const (
	stackContext = -16
	stackRecord  = -24
	scanFrame    = stackRecord
)

// scanHead looks for the line after the status line, and for a Connection header. The scan keeps the places in the record: of
// what is there the verifier expects nothing.
func scanHead(a *assembler) {
	a.block("scan",
		asm.LoadMem(asm.R1, rContext, messageSize, asm.Word),
		asm.JLE.Imm(asm.R1, scanLimit, "scan now"),
		asm.Mov.Imm(asm.R1, scanLimit),
	)
	a.block("scan now",
		asm.StoreMem(rRecord, fieldUpTo, asm.R1, asm.Word),
		asm.StoreImm(rRecord, fieldInsert, 0, asm.Word),
		asm.StoreImm(rRecord, fieldScanned, int64(len("HTTP/1.1 200")), asm.Word),
		asm.StoreMem(asm.R10, stackContext, rContext, asm.DWord),
		asm.StoreMem(asm.R10, stackRecord, rRecord, asm.DWord),
		loop("scan_line", scanFrame),
		asm.LoadMem(asm.R2, rRecord, fieldScanned, asm.Word),
		window(shortHeader, "insert"),
		lowerCase(0),
		asm.JNE.Imm(asm.R0, text("conn"), "insert"),
		lowerCase(12),
		asm.JEq.Imm(asm.R0, text("clos"), "said"),
		asm.LoadMem(asm.R2, rRecord, fieldScanned, asm.Word),
		window(longHeader, "insert"),
		lowerCase(12),
		asm.JEq.Imm(asm.R0, text("keep"), "overwrite"),
		asm.Ja.Label("other value"),
	)
}

const (
	shortHeader = int32(len("Connection: clos"))
	longHeader  = int32(len("Connection: keep-alive\r"))
)

// window lets the program see some bytes of the message from the offset in R2 on; if they are not there, it goes to the label.
// It takes a call, but an address with an offset that the verifier does not know would take CAP_PERFMON.
func window(size int32, otherwise string) asm.Instructions {
	program := asm.Instructions{
		asm.LoadMem(asm.R1, rRecord, fieldUpTo, asm.Word),
		asm.Mov.Reg(asm.R3, asm.R2),
		asm.Add.Imm(asm.R3, size),
		asm.JGT.Reg(asm.R3, asm.R1, otherwise),
		asm.Mov.Reg(asm.R1, rContext),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnMsgPullData.Call(),
		asm.JNE.Imm(asm.R0, 0, otherwise),
	}
	program = append(program, pointers()...)
	return append(program, unless(size, otherwise)...)
}

// lowerCase loads four letters into R0. Or-ing with 0x20 makes small letters of capitals, and of nothing else that the
// name of a header or a word has.
func lowerCase(offset int16) asm.Instructions {
	return asm.Instructions{
		asm.LoadMem(asm.R0, rData, offset, asm.Word),
		asm.Or.Imm(asm.R0, 0x20202020),
	}
}

// scanLine goes on by eight bytes or to the next line feed. It returns 1 before a Connection header, at the end of the head,
// and at the end of what there is of it.
func scanLine(a *assembler) {
	a.function("scan_line",
		asm.LoadMem(rContext, asm.R2, stackContext-scanFrame, asm.DWord),
		asm.LoadMem(rRecord, asm.R2, stackRecord-scanFrame, asm.DWord),
		asm.LoadMem(asm.R2, rRecord, fieldScanned, asm.Word),
		window(8, "byte"),
		asm.LoadMem(asm.R0, rData, 0, asm.DWord),
		lineFeeds(asm.R1, asm.R0, asm.R2),
		asm.JNE.Imm(asm.R1, 0, "first"),
		asm.Mov.Imm(asm.R1, 8),
		asm.Ja.Label("go on"),
	)
	a.block("byte",
		asm.LoadMem(asm.R2, rRecord, fieldScanned, asm.Word),
		window(1, "stop"),
		asm.LoadMem(asm.R0, rData, 0, asm.Byte),
		asm.Mov.Imm(asm.R1, 0),
		asm.JEq.Imm(asm.R0, '\n', "line feed"),
		asm.Mov.Imm(asm.R1, 1),
		asm.Ja.Label("go on"),
	)
	a.block("first", firstOf(asm.R1, asm.R0))
	a.block("line feed",
		asm.LoadMem(asm.R2, rRecord, fieldScanned, asm.Word),
		asm.Add.Reg(asm.R2, asm.R1),
		asm.Add.Imm(asm.R2, 1),
		asm.StoreMem(rRecord, fieldScanned, asm.R2, asm.Word),
		asm.LoadMem(asm.R0, rRecord, fieldInsert, asm.Word),
		asm.JNE.Imm(asm.R0, 0, "line"),
		asm.StoreMem(rRecord, fieldInsert, asm.R2, asm.Word),
	)
	a.block("line",
		window(shortHeader, "stop"),
		asm.LoadMem(asm.R0, rData, 0, asm.Half),
		asm.JEq.Imm(asm.R0, text("\r\n"), "stop"),
		asm.Mov.Imm(asm.R1, 0),
		lowerCase(0),
		asm.JNE.Imm(asm.R0, text("conn"), "go on"),
		lowerCase(4),
		asm.JNE.Imm(asm.R0, text("ecti"), "go on"),
		lowerCase(8),
		asm.JNE.Imm(asm.R0, text("on: "), "go on"),
	)
	endScan(a)
}

// endScan tells bpf_loop to stop, or to call again for what comes R1 bytes later.
func endScan(a *assembler) {
	a.block("stop", asm.Mov.Imm(asm.R0, 1), asm.Return())
	a.block("go on",
		asm.LoadMem(asm.R0, rRecord, fieldScanned, asm.Word),
		asm.Add.Reg(asm.R0, asm.R1),
		asm.StoreMem(rRecord, fieldScanned, asm.R0, asm.Word),
		asm.Mov.Imm(asm.R0, 0),
		asm.Return(),
	)
}

// overwriteValue writes "close" and spaces over "keep-alive", which is the whole value.
func overwriteValue(a *assembler) {
	a.block("overwrite",
		lowerCase(16),
		asm.JNE.Imm(asm.R0, text("-ali"), "other value"),
		asm.LoadMem(asm.R0, rData, 20, asm.Half),
		asm.Or.Imm(asm.R0, 0x2020),
		asm.JNE.Imm(asm.R0, text("ve"), "other value"),
		asm.LoadMem(asm.R0, rData, 22, asm.Byte),
		asm.JNE.Imm(asm.R0, '\r', "other value"),
		asm.StoreImm(rData, 12, int64(text("clos")), asm.Word),
		asm.StoreImm(rData, 16, int64(text("e   ")), asm.Word),
		asm.StoreImm(rData, 20, int64(text("  ")), asm.Half),
		asm.Ja.Label("said"),
	)
}

const closeFirst = "close, "

// insertBeforeValue puts "close, " before a value that is something else, such as the names of other headers.
func insertBeforeValue(a *assembler) {
	a.block("other value",
		asm.LoadMem(asm.R2, rRecord, fieldScanned, asm.Word),
		asm.Add.Imm(asm.R2, int32(len("Connection: "))),
		asm.StoreMem(rRecord, fieldInsert, asm.R2, asm.Word),
		push(closeFirst),
	)
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
