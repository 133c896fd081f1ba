package chaos

import (
	"bytes"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// children reaps everything below this process, as a service manager does: what is left when grace is replaced by another
// process too.
type children struct {
	mu      sync.Mutex
	ended   map[int]end
	changed chan struct{} // closed and replaced at each end
}

type end struct {
	status syscall.WaitStatus
	at     time.Time
}

// adopt has orphans given to this process. No other child may be waited for from now on.
func adopt() (*children, error) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("cannot become a subreaper: %w", err)
	}
	c := &children{ended: map[int]end{}, changed: make(chan struct{})}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGCHLD)
	go func() {
		for range signals {
			c.reap()
		}
	}()
	return c, nil
}

func (c *children) reap() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if err != nil || pid <= 0 {
			return
		}
		c.ended[pid] = end{status, time.Now()}
		close(c.changed)
		c.changed = make(chan struct{})
	}
}

// start begins a process whose end cannot be missed.
func (c *children) start(program string, arguments []string, attributes *os.ProcAttr) (pid int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, err := os.StartProcess(program, arguments, attributes)
	if err != nil {
		return 0, err
	}
	pid = p.Pid
	delete(c.ended, pid)
	return pid, p.Release() // and p.Pid is -1 from here on
}

// end tells how a process ended that has lived at that time.
func (c *children) end(pid int, since time.Time) (syscall.WaitStatus, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.ended[pid]
	return e.status, ok && e.at.After(since)
}

// await waits for the end of a process.
func (c *children) await(pid int, since time.Time) (syscall.WaitStatus, bool) {
	for limit := time.After(patience); ; {
		c.mu.Lock()
		changed := c.changed
		c.mu.Unlock()
		if status, ok := c.end(pid, since); ok {
			return status, true
		}
		select {
		case <-changed:
		case <-limit:
			return 0, false
		}
	}
}

// left are the processes that still live below this one.
func (c *children) left() []string {
	c.reap()
	return below(os.Getpid())
}

// below lists the living descendants of a process.
func below(pid int) (found []string) {
	tasks, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid)) // it may have ended
	for _, task := range tasks {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", pid, task.Name()))
		for _, child := range strings.Fields(string(text)) {
			n, err := strconv.Atoi(child)
			if err != nil || state(n) == "Z" || state(n) == "" {
				continue
			}
			command, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", n))
			found = append(found, fmt.Sprintf("%d (%s)", n, strings.TrimSpace(string(bytes.ReplaceAll(command, []byte{0}, []byte(" "))))))
			found = append(found, below(n)...)
		}
	}
	return found
}

// state is the letter of proc_pid_stat(5), empty for a process that is not there.
func state(pid int) string { return stateAt(fmt.Sprintf("/proc/%d/stat", pid)) }

func stateAt(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	return fields[0]
}

// halted reports whether every thread of a process is stopped, or the process is gone.
func halted(pid int) bool {
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return true
	}
	for _, task := range tasks {
		if s := stateAt(fmt.Sprintf("/proc/%d/task/%s/stat", pid, task.Name())); s != "T" && s != "Z" && s != "X" && s != "" {
			return false
		}
	}
	return true
}
