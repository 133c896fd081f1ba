package childproc

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

type verdict int

const (
	waits verdict = iota
	waitsNot
	cannotLook
)

// waiters are programs that say the inode of their socket and then wait on it, or do not, each in its own way.
var waiters = map[string]struct {
	want verdict
	run  func()
}{
	"net.Listen":       {waits, func() { l := must(net.Listen("tcp", "127.0.0.1:0")); sayConn(l.(syscall.Conn)); pause() }},
	"net.ListenPacket": {waits, func() { c := must(net.ListenPacket("udp", "127.0.0.1:0")); sayConn(c.(syscall.Conn)); pause() }},
	"accept":           {waits, func() { fd := stream(); say(fd); call(unix.SYS_ACCEPT, fd, 0, 0) }},
	"accept4":          {waits, func() { fd := stream(); say(fd); call(unix.SYS_ACCEPT4, fd, 0, 0) }},
	"recvfrom":         {waits, func() { fd := datagram(); say(fd); unix.Recvfrom(fd, make([]byte, 1), 0) }},
	"recvmsg":          {waits, func() { fd := datagram(); say(fd); unix.Recvmsg(fd, make([]byte, 1), nil, 0) }},
	"recvmmsg":         {waits, func() { fd := datagram(); say(fd); recvmmsg(fd) }},
	"read":             {waits, func() { fd := datagram(); say(fd); unix.Read(fd, make([]byte, 1)) }},
	"readv":            {waits, func() { fd := datagram(); say(fd); unix.Readv(fd, [][]byte{make([]byte, 1)}) }},
	"poll":             {waits, func() { fd := stream(); say(fd); poll(fd, unix.POLLIN, 0) }},
	"poll among many":  {waits, func() { fd := stream(); say(fd); poll(fd, unix.POLLIN, 300) }},
	"select":           {waits, func() { fd := stream(); say(fd); choose(fd, true) }},
	"select of a high": {waits, func() { fd := high(stream()); say(fd); choose(fd, true) }},
	"epoll":            {waits, func() { fd := stream(); register(fd, unix.EPOLLIN); say(fd); pause() }},
	"edge-triggered":   {waits, func() { fd := stream(); register(fd, unix.EPOLLIN|unix.EPOLLET); say(fd); pause() }},
	"epoll of a copy":  {waits, func() { fd := stream(); register(must(unix.Dup(fd)), unix.EPOLLIN); say(fd); pause() }},
	"epoll among many": {waits, func() {
		many()
		fd := stream()
		register(fd, unix.EPOLLIN)
		many()
		say(fd)
		pause()
	}},
	"large epoll": {waits, func() { fd := stream(); largeSet(fd); say(fd); pause() }},
	"epoll_wait":  {waits, func() { fd := stream(); set := register(fd, unix.EPOLLIN); say(fd); epollWait(set) }},
	"thread":      {waits, func() { fd := stream(); say(fd); go unix.Accept(fd); pause() }},
	"threads": {waits, func() {
		fd := stream()
		crowd()
		go unix.Accept(fd)
		crowd()
		say(fd)
		pause()
	}},
	"headless":            {waits, func() { headless(func(fd int) { unix.Accept(fd) }) }},
	"headless among many": {waits, func() { many(); headless(func(fd int) { unix.Accept(fd) }) }},
	"headless poll":       {waits, func() { headless(func(fd int) { poll(fd, unix.POLLIN, 0) }) }},
	"ring and epoll":      {waits, func() { fd := stream(); ring(fd); register(fd, unix.EPOLLIN); say(fd); pause() }},

	"listens only":     {waitsNot, func() { fd := stream(); say(fd); pause() }},
	"poll to write":    {waitsNot, func() { fd := stream(); say(fd); poll(fd, unix.POLLPRI, 0) }},
	"poll of another":  {waitsNot, func() { fd := stream(); say(fd); poll(stream(), unix.POLLIN, 0) }},
	"select to write":  {waitsNot, func() { fd := stream(); say(fd); choose(fd, false) }},
	"epoll to write":   {waitsNot, func() { fd := stream(); register(fd, unix.EPOLLOUT); say(fd); pause() }},
	"epoll spent":      {waitsNot, func() { fd := stream(); register(fd, 0); say(fd); pause() }},
	"epoll of another": {waitsNot, func() { fd := stream(); register(stream(), unix.EPOLLIN); say(fd); pause() }},
	"ring at rest":     {waitsNot, func() { fd := stream(); ring(-1); say(fd); pause() }},

	"ring": {cannotLook, func() { fd := stream(); ring(fd); say(fd); pause() }},
}

func init() {
	roles["waiter"] = func() { waiters[os.Getenv("WAITER")].run() }
	if strings.HasPrefix(os.Getenv("WAITER"), "headless") {
		runtime.LockOSThread() // during init this is the main thread
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func say(fd int) {
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		panic(err)
	}
	fmt.Println(stat.Ino)
}

func sayConn(c syscall.Conn) {
	must(c.SyscallConn()).Control(func(fd uintptr) { say(int(fd)) })
	runtime.SetFinalizer(c, nil)
}

func call(number uintptr, args ...int) {
	var a [6]uintptr
	for i, arg := range args {
		a[i] = uintptr(arg)
	}
	uninterrupted(func() error {
		_, _, errno := unix.Syscall6(number, a[0], a[1], a[2], a[3], a[4], a[5])
		return errno
	})
}

// uninterrupted waits again after a signal: the Go runtime sends itself some, and a waiter that returns has ended.
func uninterrupted(wait func() error) {
	for wait() == unix.EINTR {
	}
}

// pause waits for nothing, and in a way that can be told from outside.
func pause() { call(unix.SYS_PPOLL) }

func stream() int {
	fd := must(unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0))
	if err := unix.Listen(fd, 8); err != nil {
		panic(err)
	}
	return fd
}

func datagram() int { return must(unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)) }

func high(fd int) int { return must(unix.FcntlInt(uintptr(fd), unix.F_DUPFD, 200)) }

// many is more descriptors than are listed in one go.
func many() {
	for range window + 50 {
		must(unix.Open(os.DevNull, unix.O_RDONLY, 0))
	}
}

// crowd is 80 threads that wait for nothing.
func crowd() {
	for range 80 {
		go pause()
	}
}

func headless(wait func(fd int)) {
	fd := stream()
	say(fd)
	go wait(fd)
	call(unix.SYS_EXIT)
}

func recvmmsg(fd int) {
	var message [128]byte
	unix.Syscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&message)), 1, 0, 0, 0)
}

// poll waits on fd behind others that are left out.
func poll(fd int, events int16, others int) {
	fds := make([]unix.PollFd, others, others+1)
	for i := range fds {
		fds[i] = unix.PollFd{Fd: -1, Events: unix.POLLIN}
	}
	fds = append(fds, unix.PollFd{Fd: int32(fd), Events: events})
	uninterrupted(func() error {
		_, err := unix.Poll(fds, -1)
		return err
	})
}

func choose(fd int, read bool) {
	uninterrupted(func() error {
		var toRead, except unix.FdSet
		if read {
			toRead.Set(fd)
		} else {
			except.Set(fd)
		}
		_, err := unix.Select(fd+1, &toRead, nil, &except, nil)
		return err
	})
}

func register(fd int, events uint32) int {
	set := must(unix.EpollCreate1(0))
	if err := unix.EpollCtl(set, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: events}); err != nil {
		panic(err)
	}
	return set
}

// largeSet registers so many others too that fdinfo takes many pages.
func largeSet(fd int) {
	set := register(fd, unix.EPOLLIN)
	for range 300 {
		event := unix.EpollEvent{Events: unix.EPOLLIN}
		if err := unix.EpollCtl(set, unix.EPOLL_CTL_ADD, datagram(), &event); err != nil {
			panic(err)
		}
	}
}

// epollWait has the set far beyond the first descriptors that a look goes through: only the thread leads there.
func epollWait(set int) {
	many()
	far := high(set)
	unix.Close(set)
	uninterrupted(func() error {
		_, err := unix.EpollWait(far, make([]unix.EpollEvent, 1), -1)
		return err
	})
}

const (
	ioUringSetup = 425
	ioUringEnter = 426
)

// ring makes an io_uring, and has it accept on fd unless that is negative (io_uring_setup(2); the offsets are those of
// struct io_uring_params and struct io_uring_sqe).
func ring(fd int) {
	var params [30]uint32
	r, _, errno := unix.Syscall(ioUringSetup, 4, uintptr(unsafe.Pointer(&params)), 0)
	if errno != 0 {
		fmt.Println("no io_uring:", errno)
		os.Exit(0)
	}
	if fd < 0 {
		return
	}
	const queue, entries, accept = 0, 0x10000000, 13
	protection := unix.PROT_READ | unix.PROT_WRITE
	entry := must(unix.Mmap(int(r), entries, 4096, protection, unix.MAP_SHARED))
	entry[0] = accept
	*(*int32)(unsafe.Pointer(&entry[4])) = int32(fd)
	tail := params[11]
	*(*uint32)(unsafe.Pointer(&must(unix.Mmap(int(r), queue, 4096, protection, unix.MAP_SHARED))[tail])) = 1
	unix.Syscall(ioUringEnter, r, 1, 0)
}
