package handoff

import (
	"bufio"
	"errors"
	"fmt"
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

// patience is how long a test waits for what has to come.
const patience = 30 * time.Second

// app is this test binary in another role, started the way grace starts apps: raw descriptors, and no os.File that
// would switch a listener to blocking.
type app struct {
	pid     int
	gone    bool // and reaped
	orders  *os.File
	answers *bufio.Reader
}

// appStart is how an app differs from one without sockets.
type appStart struct {
	stdin   int   // the app takes orders if it is 0 or less
	files   []int // from 3 on
	env     []string
	environ func() []string // to which env is added; os.Environ
	uid     int
	flags   uintptr      // of clone
	started func() error // is called after the fork
}

// startApp starts a role, which takes a line on stdin (unless it is given one) and answers with a line on stdout.
func startApp(t *testing.T, role string, how appStart) *app {
	t.Helper()
	ordersEnd, orders := pipe(t)
	answers, answersEnd := pipe(t)
	stdin := ordersEnd.Fd()
	if how.stdin > 0 {
		stdin = uintptr(how.stdin)
	}
	files := []uintptr{stdin, answersEnd.Fd(), 2}
	for _, fd := range how.files {
		files = append(files, uintptr(fd))
	}
	if how.environ == nil {
		how.environ = os.Environ
	}
	env := append(how.environ(), roleVariable+"="+role, "GORACE=atexit_sleep_ms=0")
	attributes := &syscall.ProcAttr{Files: files, Env: append(env, how.env...)}
	attributes.Sys = &syscall.SysProcAttr{Cloneflags: how.flags}
	if how.uid != 0 {
		attributes.Sys.Credential = &syscall.Credential{Uid: uint32(how.uid), Gid: uint32(how.uid)}
	}
	pid, err := syscall.ForkExec("/proc/self/exe", []string{"app", role}, attributes)
	if how.started != nil {
		err = errors.Join(err, how.started())
	}
	must(t, errors.Join(err, ordersEnd.Close(), answersEnd.Close()))
	a := &app{pid: pid, orders: orders, answers: bufio.NewReader(answers)}
	must(t, answers.SetDeadline(time.Now().Add(patience)))
	t.Cleanup(func() {
		if !a.gone {
			unix.Kill(pid, unix.SIGKILL)
			a.wait()
		}
	})
	return a
}

func (a *app) wait() {
	for {
		if _, err := unix.Wait4(a.pid, nil, 0, nil); err != unix.EINTR {
			a.gone = true
			return
		}
	}
}

// ask gives an order and returns the answer.
func (a *app) ask(t *testing.T, order string) string {
	t.Helper()
	_, err := fmt.Fprintln(a.orders, order)
	must(t, err)
	return a.hear(t)
}

func (a *app) hear(t *testing.T) string {
	t.Helper()
	line, err := a.answers.ReadString('\n')
	must(t, err)
	return strings.TrimSuffix(line, "\n")
}

// do gives an order that is answered by the error it ends with, and wants none.
func (a *app) do(t *testing.T, order string) {
	t.Helper()
	if got := a.ask(t, order); got != "<nil>" {
		t.Fatalf("%s: %s", order, got)
	}
}

// obey answers every order until there are no more.
func obey(do func(order string) string) {
	for orders := bufio.NewScanner(os.Stdin); orders.Scan(); {
		fmt.Println(do(orders.Text()))
	}
}

func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	must(t, err)
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("never: " + what)
		}
	}
}

// requireRoot skips a test that has to be another user, too.
func requireRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		requirement.Check(t, "root", errors.New("needs root, to be another user too"))
	}
}

const nobody = 65534

// dial connects until the end of the test.
func dial(t *testing.T, network, addr string) net.Conn {
	t.Helper()
	conn, err := net.Dial(network, addr)
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn
}

// descriptors is how many this process has open.
func descriptors(t *testing.T) int {
	t.Helper()
	open, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(open)
}

var stackHead = regexp.MustCompile(`^goroutine \d+ .*\[(.*)\]:`)

// awaitState returns the state of the goroutine in a function once it waits.
func awaitState(t *testing.T, function string) string {
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

// signals are more than Go's runtime sends to a thread that is about to sleep.
const signals = 3

var switchesLine = regexp.MustCompile(`(?m)^voluntary_ctxt_switches:\t(\d+)`)

func switches(t *testing.T, tid int) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/status", tid))
	must(t, err)
	n, err := strconv.Atoi(string(switchesLine.FindSubmatch(status)[1]))
	must(t, err)
	return n
}

// freePort is one that nothing is bound to.
func freePort(t *testing.T, host string) netip.AddrPort {
	t.Helper()
	return netip.MustParseAddrPort(freeport.On(t, host))
}
