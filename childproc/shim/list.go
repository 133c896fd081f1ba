package shim

import (
	"syscall"
	"unsafe"
)

// Where a shim has its data, in all processes: above programs that are not moved, below all else that the kernel and Go
// place by themselves. Lists can so contain addresses.
const (
	base   = 0x4000_0000 << (6 * (^uintptr(0) >> 63))
	report = base // two words
	start  = base + 2*wordSize
	size   = 8 << 20 // arguments and environment of an exec take 6 MB at most (bprm_stack_limits in fs/exec.c)
)

// A list is its head of three words: the size of all, the address of the first call, and the connection's descriptor for a
// report; the list itself comes by descriptor 0. Then follow data, and the calls up to the end.
const (
	wordSize = 8
	headSize = 3 * wordSize
	callSize = 9 * wordSize

	whole      = start
	firstCall  = start + wordSize
	connection = start + 2*wordSize
)

// mostDigits is what the largest number takes.
const mostDigits = 20

// call has the form in which it is carried out.
type call struct {
	number    uint64
	arguments [6]uint64
	result    uint64 // the address at which the result is stored; 0: nowhere
	digits    uint64 // the address at which it is written down as a decimal number; 0: nowhere
}

// List is system calls to be carried out one after the other, and the data they point to. Its methods belong to one
// goroutine.
type List struct {
	connection int
	calls      []call
	steps      []string // what each of the calls is called in an error
	data       []byte
	err        error
}

// NewList is for a shim that has its connection at this descriptor, and as its stdin until the list changes that.
func NewList(connection int) *List { return &List{connection: connection} }

// Call appends a call. step is for [List.Step].
func (l *List) Call(step string, number uintptr, arguments ...uintptr) {
	c := call{number: uint64(number)}
	for i, a := range arguments {
		c.arguments[i] = uint64(a)
	}
	l.calls, l.steps = append(l.calls, c), append(l.steps, step)
}

// StoreResult has the result of the last call stored as a word of eight bytes.
func (l *List) StoreResult(address uintptr) { l.calls[len(l.calls)-1].result = uint64(address) }

// PID appends a call for a string that C can read: the prefix, followed by the shim's own process number.
func (l *List) PID(prefix string) uintptr {
	at := l.Bytes(append([]byte(prefix), make([]byte, mostDigits+1)...))
	l.Call("pid", syscall.SYS_GETPID)
	l.calls[len(l.calls)-1].digits = uint64(at) + uint64(len(prefix))
	return at
}

// Step is the name of the call with this index.
func (l *List) Step(index int) string {
	if index >= len(l.steps) {
		return "shim"
	}
	return l.steps[index]
}

// Bytes appends data, and gives the address that it will have. Words in it are aligned.
func (l *List) Bytes(data []byte) uintptr {
	l.align()
	at := start + headSize + uintptr(len(l.data))
	l.data = append(l.data, data...)
	return at
}

// String appends a string that C can read.
func (l *List) String(text string) uintptr {
	for i := range len(text) {
		if text[i] == 0 {
			l.err = syscall.EINVAL
		}
	}
	return l.Bytes(append([]byte(text), 0))
}

// Strings appends an array of strings as execve(2) takes it, with those that are there already at its end.
func (l *List) Strings(texts []string, more ...uintptr) uintptr {
	pointers := make([]uintptr, 0, len(texts)+len(more)+1)
	for _, text := range texts {
		pointers = append(pointers, l.String(text))
	}
	return l.Words(append(append(pointers, more...), 0)...)
}

// Words appends an array of C's unsigned longs, which are addresses too.
func (l *List) Words(words ...uintptr) uintptr {
	return l.Bytes(unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), len(words)*int(unsafe.Sizeof(words[0]))))
}

func (l *List) align() {
	for len(l.data)%wordSize != 0 {
		l.data = append(l.data, 0)
	}
}

// Encode gives what is to be sent. The error is EINVAL for a string with a zero byte, and E2BIG for more than an exec takes.
func (l *List) Encode() ([]byte, error) {
	l.align()
	all := headSize + len(l.data) + len(l.calls)*callSize
	if all > size-(start-base) {
		return nil, syscall.E2BIG
	}
	text := make([]byte, 0, all)
	text = appendWords(text, uint64(all), uint64(start+headSize+len(l.data)), uint64(l.connection))
	text = append(text, l.data...)
	for _, c := range l.calls {
		text = appendWords(appendWords(appendWords(text, c.number), c.arguments[:]...), c.result, c.digits)
	}
	return text, l.err
}

func appendWords(text []byte, words ...uint64) []byte {
	return append(text, unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), len(words)*wordSize)...)
}

// StatusFailed is the exit status of a shim that does not become the app.
const StatusFailed = 126

// ReportSize is how long a report is.
const ReportSize = 2 * wordSize

// ParseReport gives the index of the call that has failed, and why.
func ParseReport(text []byte) (index int, errno syscall.Errno, ok bool) {
	if len(text) != ReportSize {
		return 0, 0, false
	}
	var words [2]uint64
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&words)), ReportSize), text)
	return int(words[0]), syscall.Errno(words[1]), true
}
