package capture_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/gracerun/grace/childproc"
	"github.com/gracerun/grace/childproc/capture"
	"golang.org/x/sys/unix"
)

func init() {
	roles["socket"] = openSocket
	roles["thread"] = inThread(openSocket)
	roles["late"] = onceTold(openSocket)
	roles["fork"] = inChild
	roles["orphan"] = inOrphan
	roles["unlink"] = unlinkAll
	roles["mptcp"] = openMPTCP
	roles["serve"] = serveHTTP
	roles["nested"] = startNested
	roles["status"] = func([]string) { fmt.Println(statusField("NoNewPrivs:"), statusField("Seccomp:"), descriptors()) }
}

// openSocket tells of each step that it makes on a socket; the first argument is
// its address, the others are flags for socket.
func openSocket(args []string) {
	address := parseAddress(args[0])
	kind := unix.SOCK_STREAM
	for _, flag := range args[1:] {
		kind |= map[string]int{"cloexec": unix.SOCK_CLOEXEC, "nonblock": unix.SOCK_NONBLOCK}[flag]
	}
	fd, err := unix.Socket(family(address), kind, 0)
	say("socket", fd, err)
	say("bind", fd, unix.Bind(fd, address))
	say("listen", fd, unix.Listen(fd, 7))
	status, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	flags, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	fmt.Println("flags", status&unix.O_NONBLOCK != 0, flags&unix.FD_CLOEXEC != 0)
	io.Copy(io.Discard, os.Stdin)
}

func say(step string, fd int, err error) {
	errno, _ := err.(syscall.Errno)
	fmt.Println(step, fd, inode(fd), int(errno))
}

func parseAddress(text string) unix.Sockaddr {
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		return &unix.SockaddrUnix{Name: text}
	}
	number, _ := strconv.Atoi(port)
	ip := net.ParseIP(host)
	if four := ip.To4(); four != nil {
		return &unix.SockaddrInet4{Port: number, Addr: [4]byte(four)}
	}
	return &unix.SockaddrInet6{Port: number, Addr: [16]byte(ip)}
}

func family(address unix.Sockaddr) int {
	switch address.(type) {
	case *unix.SockaddrInet4:
		return unix.AF_INET
	case *unix.SockaddrInet6:
		return unix.AF_INET6
	}
	return unix.AF_UNIX
}

func inode(fd int) uint64 {
	var stat unix.Stat_t
	unix.Fstat(fd, &stat)
	return stat.Ino
}

// inThread makes sure that it is not the main one.
func inThread(role func([]string)) func([]string) {
	return func(args []string) {
		if unix.Gettid() == unix.Getpid() {
			runtime.LockOSThread()
		}
		var done sync.WaitGroup
		done.Go(func() { role(args) })
		done.Wait()
	}
}

func onceTold(role func([]string)) func([]string) {
	return func(args []string) {
		fmt.Println("up")
		if _, err := os.Stdin.Read(make([]byte, 1)); err != nil {
			return
		}
		role(args)
	}
}

func child(args []string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), roleVariable+"=socket")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd
}

func inChild(args []string) {
	if err := child(args).Run(); err != nil {
		panic(err)
	}
}

func inOrphan(args []string) {
	if err := child(args).Start(); err != nil {
		panic(err)
	}
}

// unlinkAll goes to a folder, and removes what is in it in all ways.
func unlinkAll(args []string) {
	dir := args[0]
	if err := os.Chdir(dir); err != nil {
		panic(err)
	}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_CLOEXEC, 0)
	say("open", fd, err)
	say("unlink", 0, unix.Unlink(dir+"/absolute"))
	say("unlink", 0, unix.Unlink("relative"))
	say("unlink", 0, unix.Unlinkat(fd, "at", 0))
	say("unlink", 0, unix.Unlinkat(fd, "folder", unix.AT_REMOVEDIR))
	_, _, errno := unix.Syscall(unix.SYS_UNLINKAT, uintptr(fd), 1, 0)
	say("unlink", 0, errno)
}

func openMPTCP([]string) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP)
	say("socket", fd, err)
}

func serveHTTP(args []string) {
	ln, err := net.Listen("tcp", args[0])
	if err != nil {
		panic(err)
	}
	http.Serve(ln, http.NotFoundHandler())
}

func startNested([]string) {
	signal.Ignore(syscall.SIGPIPE)
	reaper, err := childproc.NewReaper()
	if err != nil {
		panic(err)
	}
	p, err := reaper.Start(spec("status"))
	if err != nil {
		panic(err)
	}
	_, err = p.Captured()
	exit, _ := p.Wait()
	fmt.Println("nested", errors.Is(err, capture.ErrNested), exit.Err != nil && errors.Is(exit.Err, capture.ErrNested), strings.Contains(err.Error(), "inside another grace process"))
}

func statusField(name string) string {
	text, err := os.ReadFile("/proc/thread-self/status")
	if err != nil {
		panic(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, name); ok {
			return strings.TrimSpace(value)
		}
	}
	return "none"
}

// descriptors counts what is open for the app beyond 0, 1 and 2, without what Go's runtime opens.
func descriptors() int {
	count := 0
	for fd := 3; fd < 64; fd++ {
		link, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
		if err == nil && (strings.Contains(link, "seccomp") || strings.Contains(link, "socket")) {
			count++
		}
	}
	return count
}

// app is a captured process. It is killed and reaped at the test's end.
type app struct {
	*childproc.Process
	listener *capture.Listener
	in       *os.File
	out      *bufio.Reader
	reaped   bool
}

// itself is this program, which others may not reach by its path.
var itself = sync.OnceValue(func() int {
	fd, err := childproc.OpenExecutable("/proc/self/exe")
	if err != nil {
		panic(err)
	}
	return fd
})

func spec(role string, args ...string) childproc.Spec {
	return childproc.Spec{
		Path: "/proc/self/exe", Program: itself(), Args: append([]string{"app"}, args...),
		Env:   append(ordinaryEnv(), roleVariable+"="+role, "GORACE=atexit_sleep_ms=0"),
		Stdin: -1, Stdout: 1, Stderr: 2, Umask: -1,
		Capture: true, NoNewPrivs: capture.NeedsNoNewPrivs(),
	}
}

// ordinaryEnv is for what goes on as something else: of two values the first counts.
func ordinaryEnv() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, roleVariable+"=") })
}

func startRole(t *testing.T, role string, args ...string) *app {
	t.Helper()
	return start(t, spec(role, args...))
}

func start(t *testing.T, s childproc.Spec) *app {
	t.Helper()
	a := launch(t, s)
	var err error
	if a.listener, err = a.Captured(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.listener.Close() })
	return a
}

func launch(t *testing.T, s childproc.Spec) *app {
	t.Helper()
	reaper, err := childproc.NewReaper()
	if err != nil {
		t.Fatal(err)
	}
	theirIn, in := pipe(t)
	out, theirOut := pipe(t)
	s.Stdin, s.Stdout = int(theirIn.Fd()), int(theirOut.Fd())
	p, err := reaper.Start(s)
	if err != nil {
		t.Fatal(err)
	}
	theirIn.Close()
	theirOut.Close()
	a := &app{Process: p, in: in, out: bufio.NewReader(out)}
	t.Cleanup(func() { a.end(t) })
	return a
}

func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

func (a *app) end(t *testing.T) {
	t.Helper()
	if a.reaped {
		return
	}
	a.reaped = true
	a.in.Close()
	err := a.SignalGroup(syscall.SIGKILL)
	_, waited := a.Wait()
	if err := errors.Join(err, waited, a.WaitRest(nil), a.Reap()); err != nil {
		t.Error(err)
	}
}

func (a *app) line(t *testing.T) string {
	t.Helper()
	line, err := a.out.ReadString('\n')
	if err != nil {
		t.Fatalf("the app said %q and ended: %v", line, err)
	}
	return strings.TrimSpace(line)
}

// step reads what the app says of one.
func (a *app) step(t *testing.T, name string) (fd int, inode uint64, errno syscall.Errno) {
	t.Helper()
	line, number := a.line(t), 0
	if _, err := fmt.Sscanf(line, name+" %d %d %d", &fd, &inode, &number); err != nil {
		t.Fatalf("the app said %q where a %s was expected", line, name)
	}
	return fd, inode, syscall.Errno(number)
}

func (a *app) next(t *testing.T, want capture.Syscall) capture.Call {
	t.Helper()
	c, err := a.listener.Next()
	if err != nil {
		t.Fatalf("no %s came: %v", want, err)
	}
	if c.Syscall() != want || !c.Valid() {
		t.Fatalf("got %s, valid %v; want %s", c.Syscall(), c.Valid(), want)
	}
	return c
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
