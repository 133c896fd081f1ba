package childproc

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gracerun/grace/internal/requirement"
	"golang.org/x/sys/unix"
)

// startWaiter gives a running waiter and the inode of its socket.
func startWaiter(t *testing.T, cmd *exec.Cmd, name string) (*program, uint64) {
	t.Helper()
	cmd.Env = append(cmd.Env, "WAITER="+name)
	p := startProgram(t, cmd)
	line, _ := p.out.ReadString('\n')
	if strings.HasPrefix(line, "no io_uring") {
		requirement.Check(t, "io_uring", errors.New(line))
	}
	inode, err := strconv.ParseUint(strings.TrimSpace(line), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return p, inode
}

// settled is when a thread waits in a way that the Go runtime itself does not.
func settled(t *testing.T, pid int, kinds ...wait) {
	t.Helper()
	eventually(t, "the program waits", func() bool {
		tasks := must(openTasks(pid))
		defer tasks.close()
		for _, tid := range tasks.threads {
			text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/syscall", pid, tid))
			var number, first uint64
			n, _ := fmt.Sscanf(string(text), "%d 0x%x", &number, &first)
			if n == 2 && slices.Contains(kinds, waitOf(number)) && (waitOf(number) != onEpoll || first >= 200) {
				return true
			}
		}
		return false
	})
}

func seesWaiting(t *testing.T, pids func() []int, inodes ...uint64) {
	t.Helper()
	l := NewWaitDetector(inodes)
	eventually(t, "it is seen waiting", func() bool {
		seen, err := l.Look(pids())
		if err != nil {
			t.Fatal(err)
		}
		return !strings.Contains(fmt.Sprint(seen), "false")
	})
}

func TestLook(t *testing.T) {
	for name, w := range waiters {
		t.Run(name, func(t *testing.T) {
			p, inode := startWaiter(t, roleCommand("waiter"), name)
			if w.want == waits {
				seesWaiting(t, func() []int { return []int{p.pid()} }, inode)
				return
			}
			settled(t, p.pid(), onPollfds, onSet)
			l := NewWaitDetector([]uint64{inode})
			for range 5 {
				seen, err := l.Look([]int{p.pid()})
				if len(seen) != 1 || seen[0] || errors.Is(err, ErrCannotLook) != (w.want == cannotLook) {
					t.Fatalf("%v, %v", seen, err)
				}
			}
		})
	}
}

// programs are in other languages, as people write them; each says its socket's inode first.
var programs = map[string]string{
	"accept":    `s.listen(); say(); s.accept()`,
	"timeout":   `s.listen(); s.settimeout(1000); say(); s.accept()`,
	"select":    `s.listen(); say(); select.select([s],[],[])`,
	"poll":      `s.listen(); say(); p=select.poll(); p.register(s); p.poll()`,
	"selectors": `s.listen(); say(); p=selectors.DefaultSelector(); p.register(s,1); p.select()`,
	"thread":    `s.listen(); say(); threading.Thread(target=s.accept).start(); time.sleep(1000)`,
	"prefork":   `s.listen(); say(); [s.accept() for _ in range(3) if os.fork()==0]; time.sleep(1000)`,
	"grandson":  `s.listen(); say(); os.fork()==0 and os.fork()==0 and s.accept(); time.sleep(1000)`,
	"server":    `s.close(); s=socketserver.TCPServer(("127.0.0.1",0),None); say(); s.serve_forever()`,
	"http":      `s.close(); s=http.server.ThreadingHTTPServer(("127.0.0.1",0),None); say(); s.serve_forever()`,
	"asyncio": `s.listen(); say()
async def main(): await (await asyncio.start_server(print,sock=s)).serve_forever()
asyncio.run(main())`,
	"asyncio datagrams": `s=socket.socket(type=socket.SOCK_DGRAM); s.bind(("127.0.0.1",0)); say()
async def main():
  await asyncio.get_running_loop().create_datagram_endpoint(asyncio.DatagramProtocol,sock=s)
  await asyncio.sleep(1000)
asyncio.run(main())`,
	"datagrams": `s=socket.socket(type=socket.SOCK_DGRAM); s.bind(("127.0.0.1",0)); say(); s.recvfrom(1)`,
}

const prologue = `
import os,socket,select,selectors,threading,time,socketserver,http.server,asyncio
s=socket.socket(); s.bind(("127.0.0.1",0))
def say(): print(os.fstat(s.fileno()).st_ino,flush=True)
`

func TestLookAtPrograms(t *testing.T) {
	python, err := exec.LookPath("python3")
	requirement.Check(t, "python3", err)
	for name, script := range programs {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command(python, "-c", prologue+script)
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			p := startProgram(t, cmd)
			t.Cleanup(func() { syscall.Kill(-p.pid(), syscall.SIGKILL) })
			var inode uint64
			p.scan(t, &inode)
			seesWaiting(t, func() []int { return must(Tree(p.pid())) }, inode)
		})
	}
}

// A frozen machine, container or laptop, a debugger and SIGSTOP all interrupt poll: it goes on as another system call.
func TestLookAtPollAfterStop(t *testing.T) {
	python, err := exec.LookPath("python3")
	requirement.Check(t, "python3", err)
	p := startProgram(t, exec.Command(python, "-c", prologue+programs["poll"]))
	var inode uint64
	p.scan(t, &inode)
	settled(t, p.pid(), onPollfds)
	for _, signal := range []syscall.Signal{syscall.SIGSTOP, syscall.SIGCONT} {
		if err := p.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it has stopped or goes on", func() bool {
			stat := must(os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.pid())))
			return strings.Contains(string(stat), ") T ") == (signal == syscall.SIGSTOP)
		})
	}
	settled(t, p.pid(), onPollfds, onPollfdsAgain)
	seesWaiting(t, func() []int { return []int{p.pid()} }, inode)
}

func TestLookForSeveralSockets(t *testing.T) {
	a, one := startWaiter(t, roleCommand("waiter"), "accept")
	b, two := startWaiter(t, roleCommand("waiter"), "net.Listen")
	c, three := startWaiter(t, roleCommand("waiter"), "listens only")
	settled(t, c.pid(), onPollfds)
	pids := []int{a.pid(), b.pid(), c.pid()}
	seesWaiting(t, func() []int { return pids }, two, one)
	l := NewWaitDetector([]uint64{three, two, one})
	eventually(t, "two of three are seen", func() bool {
		seen := must(l.Look(pids))
		return !seen[0] && seen[1] && seen[2]
	})
}

func TestLookRemembers(t *testing.T) {
	p, inode := startWaiter(t, roleCommand("waiter"), "accept")
	_, other := startWaiter(t, roleCommand("waiter"), "listens only")
	l := NewWaitDetector([]uint64{inode, other})
	eventually(t, "it is seen waiting", func() bool { return must(l.Look([]int{p.pid()}))[0] })
	if seen, err := l.Look(nil); err != nil || !seen[0] || seen[1] {
		t.Errorf("%v, %v", seen, err)
	}
}

// One look is enough if a thread is there, however many descriptors there are.
func TestLookByThread(t *testing.T) {
	p, inode := startWaiter(t, roleCommand("waiter"), "epoll_wait")
	// A signal of the runtime's may have it wait anew just then: the next look is another one's first.
	eventually(t, "one look sees it", func() bool {
		return must(NewWaitDetector([]uint64{inode}).Look([]int{p.pid()}))[0]
	})
}

func TestLookForgetsThatItCouldNot(t *testing.T) {
	p, inode := startWaiter(t, roleCommand("waiter"), "ring")
	settled(t, p.pid(), onPollfds)
	l := NewWaitDetector([]uint64{inode})
	if _, err := l.Look([]int{p.pid()}); !errors.Is(err, ErrCannotLook) {
		t.Error(err)
	}
	if _, err := l.Look(nil); err != nil {
		t.Error(err)
	}
}

func TestReadRegistration(t *testing.T) {
	const line = "tfd:        3 events:       19 data:     7fb9  pos:0 ino:4c9c sdev:9\n"
	want := registration{events: 0x19, device: 9, inode: 0x4c9c}
	if got, ok := readRegistration([]byte(line)); !ok || got != want {
		t.Errorf("%+v, %v", got, ok)
	}
	for _, text := range []string{
		"", "pos:\t0\n", "flags:\t02\n", "tfd:\n",
		strings.Replace(line, "ino:4c9c", "ino:woof", 1), strings.Replace(line, " sdev:9", "", 1),
	} {
		if got, ok := readRegistration([]byte(text)); ok {
			t.Errorf("%+v in %q", got, text)
		}
	}
}

func TestLookAtTheEnded(t *testing.T) {
	p, inode := startWaiter(t, roleCommand("waiter"), "net.Listen")
	p.Process.Kill()
	eventually(t, "it is a zombie", func() bool { return !must(readStat(p.pid())).living() })
	for range 2 {
		seen, err := NewWaitDetector([]uint64{inode}).Look([]int{p.pid()})
		if err != nil || seen[0] {
			t.Errorf("%v, %v", seen, err)
		}
		owner, err := Owner(inode, []int{p.pid()})
		if err != nil || owner != 0 {
			t.Errorf("%v, %v", owner, err)
		}
		p.Wait()
	}
}

func TestLookAtNobody(t *testing.T) {
	p, inode := startWaiter(t, asNobody(t, roleCommand("waiter")), "accept")
	seesWaiting(t, func() []int { return []int{p.pid()} }, inode)
	if owner, err := Owner(inode, []int{p.pid()}); err != nil || owner != p.pid() {
		t.Errorf("%v, %v", owner, err)
	}
}

func init() {
	roles["look"] = look
	roles["look hidden"] = lookHidden
	roles["open hidden"] = openHidden
	roles["look exhausted"] = lookExhausted
	roles["look at a zombie"] = lookAtZombie
}

// look says what it sees of PID, and whether an error is ErrCannotLook.
func look() {
	pid := must(strconv.Atoi(os.Getenv("PID")))
	inode := must(strconv.ParseUint(os.Getenv("INODE"), 10, 64))
	seen, err := NewWaitDetector([]uint64{inode}).Look([]int{pid})
	owner, err2 := Owner(inode, []int{pid})
	fmt.Println(seen, errors.Is(err, ErrCannotLook), errors.Is(err, unix.EMFILE), owner, errors.Is(err2, ErrCannotLook), errors.Is(err2, unix.EMFILE))
}

// lookHidden looks as nobody, where /proc hides what is not its own.
func lookHidden() { hidden(look) }

func hidden(do func()) {
	if err := unix.Mount("proc", "/proc", "proc", 0, "hidepid=2"); err != nil {
		fmt.Println("no hidepid:", err)
		return
	}
	if err := errors.Join(syscall.Setgid(nobody), syscall.Setuid(nobody)); err != nil {
		panic(err)
	}
	do()
}

// openHidden opens a process that lives, and the same as if it had another birth, when the state has the number of its pidfd.
func openHidden() {
	hidden(func() {
		pid := must(strconv.Atoi(os.Getenv("PID")))
		state := ProcessState{PID: pid, Birth: Birth{Started: 1, Inode: must(strconv.ParseUint(os.Getenv("INODE"), 10, 64))}}
		fd, err := state.Open()
		fmt.Println(fd, errors.Is(err, ErrCannotLook))
		state.Birth.Inode++
		fd, err = state.Open()
		fmt.Println(fd, err != nil)
	})
}

// Where nothing can be known of a process, an adoption says so, and does not take it for one that has ended.
func TestHiddenProcessesAreNotTakenForEnded(t *testing.T) {
	p, _ := startWaiter(t, roleCommand("waiter"), "accept")
	pidfd := must(unix.PidfdOpen(p.pid(), 0))
	defer unix.Close(pidfd)
	cmd := roleCommand("open hidden", fmt.Sprint("PID=", p.pid()), fmt.Sprint("INODE=", birthOf(p.pid(), pidfd).Inode))
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	out, err := cmd.Output()
	if strings.HasPrefix(string(out), "no hidepid") {
		requirement.Check(t, "hidepid", errors.New(string(out)))
	}
	if want := "-1 true\n-1 false\n"; err != nil || string(out) != want {
		t.Errorf("%q, %v, want %q", out, err, want)
	}
}

func lookExhausted() {
	limit := unix.Rlimit{Cur: 3, Max: 3}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		panic(err)
	}
	look()
}

// lookAtZombie looks at a child whose /proc belongs to root since its end.
func lookAtZombie() {
	child := exec.Command("/proc/self/exe")
	child.Env = append(os.Environ(), roleVariable+"=nothing")
	if err := child.Start(); err != nil {
		panic(err)
	}
	for must(readStat(child.Process.Pid)).living() {
		time.Sleep(time.Millisecond)
	}
	os.Setenv("PID", strconv.Itoa(child.Process.Pid))
	look()
}

func TestLookOfOneWhoMayNot(t *testing.T) {
	p, inode := startWaiter(t, roleCommand("waiter"), "accept")
	target := []string{fmt.Sprint("PID=", p.pid()), fmt.Sprint("INODE=", inode)}
	hidden := roleCommand("look hidden", target...)
	hidden.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	for _, c := range []struct {
		name string
		cmd  *exec.Cmd
		want string
	}{
		{"other user", asNobody(t, roleCommand("look", target...)), "[false] true false 0 true false\n"},
		{"hidden", hidden, "[false] true false 0 true false\n"},
		{"zombie", asNobody(t, roleCommand("look at a zombie", target...)), "[false] false false 0 false false\n"},
		{"out of descriptors", roleCommand("look exhausted", target...), "[] false true 0 false true\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, err := c.cmd.Output()
			if strings.HasPrefix(string(out), "no hidepid") {
				requirement.Check(t, "hidepid", errors.New(string(out)))
			}
			if err != nil || string(out) != c.want {
				t.Errorf("%q, %v, want %q", out, err, c.want)
			}
		})
	}
}

func BenchmarkLook(b *testing.B) {
	for _, descriptors := range []int{0, 20, 1000} {
		b.Run(fmt.Sprint(descriptors), func(b *testing.B) {
			cmd := roleCommand("holder", fmt.Sprint("DESCRIPTORS=", descriptors))
			out := must(cmd.StdoutPipe())
			if err := cmd.Start(); err != nil {
				b.Fatal(err)
			}
			defer cmd.Wait()
			defer cmd.Process.Kill()
			out.Read(make([]byte, 1))
			l := NewWaitDetector([]uint64{1})
			for b.Loop() {
				if _, err := l.Look([]int{cmd.Process.Pid}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func init() {
	roles["holder"] = func() {
		for range must(strconv.Atoi(os.Getenv("DESCRIPTORS"))) {
			must(unix.Open(os.DevNull, unix.O_RDONLY, 0))
		}
		fmt.Println()
		pause()
	}
}
