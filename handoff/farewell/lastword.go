package farewell

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// lastWords asks the kernel who has spoken last on each connection that is announced. TCP_INFO tells it by a clock that ticks
// every 1 to 10 ms, too late for a client that asks again at once. The number of the segment by which the client's window was
// updated last (snd_wl1 in struct tcp_sock, RFC 9293, 3.10.7.4) tells it for certain: an acknowledgement of the app's
// answer carries the number behind the client's last data, and the request itself its own. So does the answer to a keepalive
// probe: a request that takes longer than the app's keepalive interval is not told from silence.
//
// It needs the kernel's description of its structures, which takes a processor some milliseconds to read: it is loaded when it is
// wanted first.
type lastWords struct {
	mu      sync.Mutex
	tried   bool
	failed  error
	program *ebpf.Program
	run     *link.Iter
}

// Values of fieldWord.
const (
	wordOfClient = 1
	wordOfApp    = 2
)

func (w *lastWords) ask(names, records *ebpf.Map) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.tried {
		w.tried, w.failed = true, w.load(names, records)
	}
	if w.failed != nil {
		return fmt.Errorf("cannot ask the kernel who has spoken last: %w", w.failed)
	}
	pass, err := w.run.Open()
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, pass)
	return errors.Join(err, pass.Close())
}

func (w *lastWords) load(names, records *ebpf.Map) error {
	kernel, err := openKernelTypes()
	if err != nil {
		return err
	}
	defer kernel.close()
	sock, err1 := kernel.find(kindStruct, "tcp_sock")
	windowUpdate, err2 := kernel.offset(sock, "snd_wl1")
	next, err3 := kernel.offset(sock, "rcv_nxt")
	pass, err4 := kernel.find(kindFunction, "bpf_iter_bpf_sk_storage_map")
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return err
	}
	if w.program, err = loadPass("grace_words", words(records, windowUpdate, next), pass.number); err == nil {
		w.run, err = link.AttachIter(link.IterOptions{Program: w.program, Map: names})
	}
	return err
}

// nativeOrder is one of the two that instructions are written in.
func nativeOrder() binary.ByteOrder {
	if binary.NativeEndian.Uint16([]byte{0, 1}) == 1 {
		return binary.BigEndian
	}
	return binary.LittleEndian
}

// loadPass loads a program that goes through something of the kernel's. ebpf.NewProgram looks for that by its name, in all types.
func loadPass(name string, instructions asm.Instructions, of uint32) (*ebpf.Program, error) {
	var code bytes.Buffer
	if err := instructions.Marshal(&code, nativeOrder()); err != nil {
		return nil, err
	}
	gpl := append([]byte(license), 0)
	attributes := struct { // of BPF_PROG_LOAD, union bpf_attr of linux/bpf.h
		kind, count           uint32
		code, license         unsafe.Pointer
		logLevel, logSize     uint32
		log                   uint64
		version, flags        uint32
		name                  [16]byte
		device, attach, types uint32
		functionSize          uint32
		functions             uint64
		functionCount         uint32
		lineSize              uint32
		lines                 uint64
		lineCount             uint32
		of                    uint32
	}{
		kind: uint32(ebpf.Tracing), count: uint32(code.Len() / asm.InstructionSize), code: unsafe.Pointer(&code.Bytes()[0]), license: unsafe.Pointer(&gpl[0]),
		attach: uint32(ebpf.AttachTraceIter), of: of,
	}
	copy(attributes.name[:], name)
	fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&attributes)), unsafe.Sizeof(attributes))
	if errno != 0 {
		return nil, fmt.Errorf("cannot load %s: %w", name, errno)
	}
	return ebpf.NewProgramFromFD(int(fd))
}

func (w *lastWords) close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tried, w.failed = true, ErrEnded
	var errs []error
	if w.run != nil {
		errs = append(errs, w.run.Close())
	}
	if w.program != nil {
		errs = append(errs, w.program.Close())
	}
	return errors.Join(errs...)
}

// Where the context of the program has a connection (struct bpf_iter__bpf_sk_storage_map in net/core/bpf_sk_storage.c).
const (
	passSock  = 16
	passValue = 24 // of the map of names
)

// words is called for each socket of the map of names, in whatever network namespace it is.
func words(records *ebpf.Map, windowUpdate, next int16) asm.Instructions {
	var a assembler
	a.block("begin",
		asm.LoadMem(asm.R2, asm.R1, passValue, asm.DWord),
		asm.LoadMem(asm.R1, asm.R1, passSock, asm.DWord),
		asm.JEq.Imm(asm.R2, 0, "end"),
		asm.JEq.Imm(asm.R1, 0, "end"),
		asm.LoadMem(asm.R2, asm.R2, 0, asm.DWord),
		asm.StoreMem(asm.R10, stackName, asm.R2, asm.DWord),
		asm.FnSkcToTcpSock.Call(),
		asm.JEq.Imm(asm.R0, 0, "end"),
		asm.Mov.Imm(asm.R7, wordOfClient),
		asm.LoadMem(asm.R1, asm.R0, windowUpdate, asm.Word),
		asm.LoadMem(asm.R2, asm.R0, next, asm.Word),
		asm.JNE.Reg(asm.R1, asm.R2, "record"),
		asm.Mov.Imm(asm.R7, wordOfApp),
	)
	a.block("record",
		lookUp(records, stackName, "end"),
		asm.StoreMem(asm.R0, fieldWord, asm.R7, asm.Word),
	)
	a.block("end", asm.Mov.Imm(asm.R0, 0), asm.Return())
	return a.program
}

// Idle tells whether no request is worked on, neither one that was seen nor one that came before the announcement. An error says
// that it cannot be told.
func (f *Farewell) Idle() (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return false, ErrEnded
	}
	if err := f.look(); err != nil {
		return false, err
	}
	if err := f.announcer.words.ask(f.announcer.names, f.announcer.records); err != nil {
		return false, err
	}
	for _, c := range f.known {
		if !c.told || f.works(c) || f.awaits(c) {
			return false, nil
		}
	}
	return true, nil
}

// awaits tells whether the client has spoken last on a connection that is silent since the announcement.
func (f *Farewell) awaits(c *connection) bool {
	r, ok := f.announcer.look(c.cookie)
	return ok && r.Arrived == 0 && r.Sent == 0 && c.consumed > 0 && r.Word != wordOfApp
}
