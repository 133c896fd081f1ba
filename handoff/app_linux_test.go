package handoff

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

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
	grant *Grant
	env   []string
	uid   int
	flags uintptr // of clone
}

// startApp starts a role, which takes a line on stdin (unless the grant has one) and answers with a line on stdout.
func startApp(t *testing.T, role string, how appStart) *app {
	t.Helper()
	if how.grant == nil {
		how.grant = &Grant{Stdin: -1}
	}
	ordersEnd, orders := pipe(t)
	answers, answersEnd := pipe(t)
	stdin := ordersEnd.Fd()
	if how.grant.Stdin >= 0 {
		stdin = uintptr(how.grant.Stdin)
	}
	files := []uintptr{stdin, answersEnd.Fd(), 2}
	for _, fd := range how.grant.Files {
		files = append(files, uintptr(fd))
	}
	env := append(CleanEnv(os.Environ()), roleVariable+"="+role, "GORACE=atexit_sleep_ms=0")
	attributes := &syscall.ProcAttr{Files: files, Env: append(append(env, how.grant.Env...), how.env...)}
	attributes.Sys = &syscall.SysProcAttr{Cloneflags: how.flags}
	if how.uid != 0 {
		attributes.Sys.Credential = &syscall.Credential{Uid: uint32(how.uid), Gid: uint32(how.uid)}
	}
	pid, err := syscall.ForkExec("/proc/self/exe", []string{"app", role}, attributes)
	must(t, errors.Join(err, how.grant.Started(), ordersEnd.Close(), answersEnd.Close()))
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

// hold binds an address until the end of the test.
func hold(t *testing.T, written string) *Listener {
	t.Helper()
	a, err := ParseAddress(written)
	must(t, err)
	l, err := Bind(a)
	must(t, err)
	t.Cleanup(func() { l.Close() })
	return l
}

func bindError(t *testing.T, written string) error {
	t.Helper()
	a, err := ParseAddress(written)
	must(t, err)
	l, err := Bind(a)
	if err == nil {
		l.Close()
		t.Fatalf("%s was bound", written)
	}
	return err
}

// requireRoot skips a test that has to be another user, too.
func requireRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		requirement.Check(t, "root", errors.New("needs root, to be another user too"))
	}
}

const nobody = 65534
