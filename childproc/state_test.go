package childproc

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func init() {
	roles["keeper"] = keep
}

// snapshot is what one keeper leaves to the next. FDs are descriptors of the states, Here those of the next.
type snapshot struct {
	Process   ProcessState
	Notify    NotifyState
	FDs, Here []int
}

// keeper has one app, a shell script, and can be succeeded by another process or by itself.
type keeper struct {
	reaper  *Reaper
	process *Process
	notify  *NotifySocket
	strange []int // descriptors that the test itself was given
}

const (
	estateVariable = "ESTATE"
	scriptVariable = "SCRIPT"
)

// keep says "up" with the app's pid, or "taken over", and then what becomes of the app.
func keep() {
	k := &keeper{reaper: orPanic(NewReaper())}
	if written := os.Getenv(estateVariable); written != "" {
		k.takeOver(written)
		fmt.Println("taken over")
	} else {
		k.strange = leaking()
		k.start()
		fmt.Println("up", k.process.PID)
	}
	go k.receive()
	orders := bufio.NewScanner(os.Stdin)
	for orders.Scan() {
		k.obey(orders.Text())
	}
}

func orPanic[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func (k *keeper) start() {
	k.notify = orPanic(OpenNotify("", -1, -1))
	spec := shell(os.Getenv(scriptVariable))
	spec.Env = append(os.Environ(), "NOTIFY_SOCKET="+k.notify.Path(), "SELF="+orPanic(os.Executable()))
	spec.Files = []int{3} // the app's orders
	k.process = orPanic(k.reaper.Start(spec))
	unix.CloseOnExec(3)
	orPanic(k.process.readReport())
}

func (k *keeper) takeOver(written string) {
	var e snapshot
	if err := json.Unmarshal([]byte(written), &e); err != nil {
		panic(err)
	}
	fds := map[int]int{}
	for i, there := range e.FDs {
		unix.CloseOnExec(e.Here[i])
		fds[there] = e.Here[i]
	}
	k.strange = leaking()
	k.process = orPanic(k.reaper.TakeOver(e.Process, fds))
	k.notify = orPanic(TakeOverNotify(e.Notify, fds))
	if len(fds) > 0 {
		panic(fmt.Sprint("nobody has taken over ", fds))
	}
}

func (k *keeper) receive() {
	for {
		m, err := k.notify.Receive(func(int) bool { return true })
		if err != nil {
			fmt.Println("suspended", errors.Is(err, os.ErrDeadlineExceeded))
			return
		}
		fmt.Println("notified", *m.Status)
	}
}

func (k *keeper) obey(order string) {
	switch order {
	case "suspend":
		orPanic(0, k.notify.Suspend())
	case "another", "same":
		k.leave(order == "same")
	case "wait":
		fmt.Println(orPanic(k.process.Wait()))
	case "rest":
		orPanic(0, k.process.WaitRest(nil))
		fmt.Println("empty", k.process.Reap())
	case "kill":
		orPanic(0, k.process.SignalGroup(syscall.SIGKILL))
	case "clean":
		fmt.Println(slices.Equal(leaking(), k.strange))
	}
}

// leave ends this keeper.
func (k *keeper) leave(same bool) {
	e := snapshot{Process: k.process.State(), Notify: orPanic(k.notify.State())}
	e.FDs = []int{e.Process.PIDFD, e.Notify.FD}
	e.Here = []int{3, 4}
	if same {
		e.Here = e.FDs
		for _, fd := range e.FDs {
			orPanic(unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0))
		}
	}
	env := append(ordinaryEnv(), roleVariable+"=keeper", estateVariable+"="+string(orPanic(json.Marshal(e))))
	if same {
		panic(syscall.Exec("/proc/self/exe", os.Args, env))
	}
	files := []uintptr{0, 1, 2, uintptr(e.FDs[0]), uintptr(e.FDs[1])}
	orPanic(syscall.ForkExec("/proc/self/exe", os.Args, &syscall.ProcAttr{Env: env, Files: files}))
	os.Exit(0)
}

func ordinaryEnv() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, roleVariable+"=") || strings.HasPrefix(v, estateVariable+"=")
	})
}

// leaking are the descriptors that a program started now would get.
func leaking() []int {
	var fds []int
	for fd := 3; fd < 256; fd++ {
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			fds = append(fds, fd)
		}
	}
	return fds
}

// kept is a keeper with its app, seen from the test.
type kept struct {
	t        *testing.T
	in, tell *os.File // the keeper's orders, and the app's
	out      *bufio.Reader
}

// startKeeper has the test take in, and reap, what its keepers leave.
func startKeeper(t *testing.T, script string) *kept {
	t.Helper()
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	theirIn, in := orFatal(t)(os.Pipe())
	out, theirOut := orFatal(t)(os.Pipe())
	theirTell, tell := orFatal(t)(os.Pipe())
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(ordinaryEnv(), roleVariable+"=keeper", scriptVariable+"="+script, "GORACE=atexit_sleep_ms=0")
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = theirIn, theirOut, os.Stderr, []*os.File{theirTell}
	if err := errors.Join(cmd.Start(), theirIn.Close(), theirOut.Close(), theirTell.Close()); err != nil {
		t.Fatal(err)
	}
	reapOrphans(t, cmd.Process.Pid)
	t.Cleanup(func() { in.Close(); tell.Close(); out.Close(); cmd.Wait() })
	if err := out.SetReadDeadline(time.Now().Add(deadline)); err != nil {
		t.Fatal(err)
	}
	return &kept{t, in, tell, bufio.NewReader(out)}
}

func orFatal(t *testing.T) func(r, w *os.File, err error) (*os.File, *os.File) {
	return func(r, w *os.File, err error) (*os.File, *os.File) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return r, w
	}
}

// reapOrphans leaves the one alone that os/exec waits for.
func reapOrphans(t *testing.T, keeper int) {
	incoming, done := make(chan os.Signal, 64), make(chan struct{})
	signal.Notify(incoming, syscall.SIGCHLD)
	go func() {
		defer close(done)
		for range incoming {
			pids, _ := children()
			for _, pid := range pids {
				if pid != keeper {
					_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil)
				}
			}
		}
	}()
	t.Cleanup(func() { signal.Stop(incoming); close(incoming); <-done })
}

func (k *kept) do(order string) {
	k.t.Helper()
	if _, err := fmt.Fprintln(k.in, order); err != nil {
		k.t.Fatal(err)
	}
}

func (k *kept) tellApp() {
	k.t.Helper()
	if _, err := fmt.Fprintln(k.tell, "go on"); err != nil {
		k.t.Fatal(err)
	}
}

func (k *kept) hear(want string) (rest string) {
	k.t.Helper()
	line, err := k.out.ReadString('\n')
	if err != nil || !strings.HasPrefix(line, want) {
		k.t.Fatalf("the keeper said %q, %v; not %q", line, err, want)
	}
	return strings.TrimSpace(line[len(want):])
}

var ways = []string{"another", "same"}

func TestProcessIsTakenOver(t *testing.T) {
	for script, want := range map[string]string{
		"read x <&3; exit 6":      "exit status 6",
		"read x <&3; exit 0":      "exit status 0",
		"read x <&3; kill -9 $$":  "signal: killed",
		"read x <&3; kill -15 $$": "signal: terminated",
	} {
		for _, way := range ways {
			t.Run(way+" "+script, func(t *testing.T) {
				k := startKeeper(t, script)
				k.hear("up")
				k.do(way)
				k.hear("taken over")
				k.tellApp()
				k.do("wait")
				k.hear(strangers(want, way))
				k.do("rest")
				k.hear("empty <nil>")
				k.do("clean")
				k.hear("true")
			})
		}
	}
}

// strangers: of a process that is not one's child the end is known from Linux 6.15 on.
func strangers(want, way string) string {
	var name unix.Utsname
	var major, minor int
	if err := unix.Uname(&name); err == nil {
		fmt.Sscanf(unix.ByteSliceToString(name.Release[:]), "%d.%d", &major, &minor)
	}
	if way == "another" && (major < 6 || major == 6 && minor < 15) {
		return "status unknown"
	}
	return want
}

// The leader of the group has gone, and been reaped by another parent; what it left behind is still followed and
// killed.
func TestGroupIsTakenOver(t *testing.T) {
	for _, way := range ways {
		t.Run(way, func(t *testing.T) {
			k := startKeeper(t, "sleep 20 & read x <&3; exit 3")
			group, err := strconv.Atoi(k.hear("up"))
			if err != nil {
				t.Fatal(err)
			}
			k.do(way)
			k.hear("taken over")
			k.tellApp()
			k.do("wait")
			k.hear(strangers("exit status 3", way))
			k.do("kill")
			k.do("rest")
			k.hear("empty <nil>")
			if left, err := Group(group); len(left) > 0 || err != nil {
				t.Errorf("%v, %v", left, err)
			}
		})
	}
}

// What the app says between two keepers waits for the second one.
func TestNotifySocketIsTakenOver(t *testing.T) {
	say := func(text string) string { return roleVariable + `=notify MESSAGE="STATUS=` + text + `" "$SELF" >&2; ` }
	for _, way := range ways {
		t.Run(way, func(t *testing.T) {
			k := startKeeper(t, "unset "+roleVariable+"; "+say("one")+"read x <&3; "+say("two")+"echo said >&1; read x <&3; "+say("three"))
			k.hear("up")
			k.hear("notified one")
			k.do("suspend")
			k.hear("suspended true")
			k.tellApp()
			k.hear("said")
			k.do(way)
			k.hear("taken over")
			k.hear("notified two")
			k.tellApp()
			k.hear("notified three")
		})
	}
}

func TestWhatHasNotComeCannotBeTakenOver(t *testing.T) {
	_, process := newReaper(t).TakeOver(ProcessState{PID: 7, PIDFD: 9}, nil)
	_, notify := TakeOverNotify(NotifyState{FD: 9}, nil)
	for _, err := range []error{process, notify} {
		if err == nil || !strings.Contains(err.Error(), "descriptor 9") {
			t.Error(err)
		}
	}
}
