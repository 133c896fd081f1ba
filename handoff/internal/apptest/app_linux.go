package apptest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gracerun/grace/internal/freeport"
	"github.com/gracerun/grace/internal/requirement"
	"golang.org/x/sys/unix"
)

// Patience is how long a test waits for what has to come.
const Patience = 2 * time.Minute

// App is this test binary in another role, started the way grace starts apps: raw descriptors, and no os.File that
// would switch a listener to blocking.
type App struct {
	PID     int
	Gone    bool // and reaped
	Orders  *os.File
	heard   *os.File
	answers *bufio.Reader
}

// Options are how an app differs from one without sockets.
type Options struct {
	Stdin   int   // the app takes orders if it is 0 or less
	Files   []int // from 3 on
	Env     []string
	Environ func() []string // to which Env is added; os.Environ if nil
	UID     int
	Rights  []uintptr    // capabilities that it has though it is not root
	Flags   uintptr      // of clone
	Started func() error // is called after the fork
}

// Start starts a role, which takes a line on stdin (unless it is given one) and answers with a line on stdout.
func Start(t *testing.T, role string, how Options) *App {
	t.Helper()
	ordersEnd, orders := Pipe(t)
	answers, answersEnd := Pipe(t)
	stdin := ordersEnd.Fd()
	if how.Stdin > 0 {
		stdin = uintptr(how.Stdin)
	}
	files := []uintptr{stdin, answersEnd.Fd(), 2}
	for _, fd := range how.Files {
		files = append(files, uintptr(fd))
	}
	if how.Environ == nil {
		how.Environ = os.Environ
	}
	env := append(how.Environ(), RoleVariable+"="+role, "GORACE=atexit_sleep_ms=0")
	attributes := &syscall.ProcAttr{Files: files, Env: append(env, how.Env...)}
	attributes.Sys = &syscall.SysProcAttr{Cloneflags: how.Flags, AmbientCaps: how.Rights}
	if how.UID != 0 {
		attributes.Sys.Credential = &syscall.Credential{Uid: uint32(how.UID), Gid: uint32(how.UID)}
	}
	pid, err := syscall.ForkExec("/proc/self/exe", []string{"app", role}, attributes)
	if how.Started != nil {
		err = errors.Join(err, how.Started())
	}
	Must(t, errors.Join(err, ordersEnd.Close(), answersEnd.Close()))
	a := &App{PID: pid, Orders: orders, heard: answers, answers: bufio.NewReader(answers)}
	t.Cleanup(func() {
		if !a.Gone {
			unix.Kill(pid, unix.SIGKILL)
			a.Wait()
		}
	})
	return a
}

func (a *App) Wait() {
	for {
		if _, err := unix.Wait4(a.PID, nil, 0, nil); err != unix.EINTR {
			a.Gone = true
			return
		}
	}
}

// Ask gives an order and returns the answer.
func (a *App) Ask(t *testing.T, order string) string {
	t.Helper()
	_, err := fmt.Fprintln(a.Orders, order)
	Must(t, err)
	return a.Hear(t)
}

func (a *App) Hear(t *testing.T) string {
	t.Helper()
	Must(t, a.heard.SetDeadline(time.Now().Add(Patience)))
	line, err := a.answers.ReadString('\n')
	Must(t, err)
	return strings.TrimSuffix(line, "\n")
}

// Do gives an order that is answered by the error it ends with, and wants none.
func (a *App) Do(t *testing.T, order string) {
	t.Helper()
	if got := a.Ask(t, order); got != "<nil>" {
		t.Fatalf("%s: %s", order, got)
	}
}

// Obey answers every order until there are no more.
func Obey(do func(order string) string) {
	for orders := bufio.NewScanner(os.Stdin); orders.Scan(); {
		fmt.Println(do(orders.Text()))
	}
}

func Pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	Must(t, err)
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

func Must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Eventually waits until a condition holds.
func Eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(Patience); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("never: " + what)
		}
	}
}

// RequireRoot skips a test that has to be another user, too.
func RequireRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		requirement.Check(t, "root", errors.New("needs root, to be another user too"))
	}
}

const Nobody = 65534

// Hold binds an address until the end of the test: package socket does, which its own tests could not use by way of this one.
func Hold[A any, L io.Closer](t *testing.T, written string, parse func(string) (A, error), bind func(A) (L, error)) L {
	t.Helper()
	a, err := parse(written)
	Must(t, err)
	l, err := bind(a)
	Must(t, err)
	t.Cleanup(func() { l.Close() })
	return l
}

// Dial connects until the end of the test.
func Dial(t *testing.T, network, addr string) net.Conn {
	t.Helper()
	conn, err := net.Dial(network, addr)
	Must(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn
}

// CloseAccepted closes each connection at once, until the listener is closed.
func CloseAccepted(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		conn.Close()
	}
}

// Descriptors is how many this process has open.
func Descriptors(t *testing.T) int {
	t.Helper()
	open, err := os.ReadDir("/proc/self/fd")
	Must(t, err)
	return len(open)
}

var stackHead = regexp.MustCompile(`^goroutine \d+ .*\[(.*)\]:`)

// AwaitState returns the state of the goroutine in a function once it waits.
func AwaitState(t *testing.T, function string) string {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		text := make([]byte, 1<<20)
		for stack := range strings.SplitSeq(string(text[:runtime.Stack(text, true)]), "\n\n") {
			head := stackHead.FindStringSubmatch(stack)
			if head != nil && strings.Contains(stack, function) && !strings.HasPrefix(head[1], "run") {
				return head[1]
			}
		}
	}
	t.Fatalf("no goroutine waits in %s within a minute", function)
	return ""
}

// Signals are more than Go's runtime sends to a thread that is about to sleep.
const Signals = 3

var switchesLine = regexp.MustCompile(`(?m)^voluntary_ctxt_switches:\t(\d+)`)

func Switches(t *testing.T, tid int) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/status", tid))
	Must(t, err)
	n, err := strconv.Atoi(string(switchesLine.FindSubmatch(status)[1]))
	Must(t, err)
	return n
}

// FreePort is one that nothing is bound to.
func FreePort(t *testing.T, host string) netip.AddrPort {
	t.Helper()
	return netip.MustParseAddrPort(freeport.On(t, host))
}
