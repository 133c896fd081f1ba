package farewell

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
)

// lastWords asks the kernel who has spoken last on each connection that is announced. TCP_INFO tells it by a clock that ticks
// every 1 to 10 ms, too late for a client that asks again at once. The number of the segment by which the client's window was
// updated last (snd_wl1 in struct tcp_sock, RFC 9293, 3.10.7.4) tells it for certain: an acknowledgement of the app's
// answer carries the number behind the client's last data, and the request itself its own. So does the answer to a keepalive
// probe: a request that takes longer than the app's keepalive interval is not told from silence.
//
// It needs the kernel's description of its structures, which takes a processor a tenth of a second to read: it is loaded when
// it is wanted first.
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
	at, err := offsets("snd_wl1", "rcv_nxt")
	if err != nil {
		return err
	}
	w.program, err = ebpf.NewProgram(&ebpf.ProgramSpec{Name: "grace_words", Type: ebpf.Tracing, AttachType: ebpf.AttachTraceIter,
		AttachTo: "bpf_sk_storage_map", License: license, Instructions: words(records, at[0], at[1])})
	if err == nil {
		w.run, err = link.AttachIter(link.IterOptions{Program: w.program, Map: names})
	}
	return err
}

// offsets finds fields of struct tcp_sock in the running kernel.
func offsets(fields ...string) (at []int16, err error) {
	kernel, err := btf.LoadKernelSpec()
	if err != nil {
		return nil, err
	}
	var sock *btf.Struct
	if err := kernel.TypeByName("tcp_sock", &sock); err != nil {
		return nil, err
	}
	for _, field := range fields {
		for _, m := range sock.Members {
			if m.Name == field {
				at = append(at, int16(m.Offset.Bytes()))
			}
		}
	}
	if len(at) != len(fields) {
		return nil, fmt.Errorf("struct tcp_sock of this kernel has not all of %q", fields)
	}
	return at, nil
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
