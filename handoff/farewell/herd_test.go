package farewell

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gracerun/grace/handoff/internal/apptest"
	"golang.org/x/sys/unix"
)

// A herd is a process of many clients with kept-alive connections, which never send a request twice. It is one of its own
// since the descriptors of a process are few.
func init() { apptest.Roles["herd"] = playHerd }

// clients are some of a herd that think for a random time between two requests.
type clients struct {
	Count    int
	Min, Max time.Duration
}

// tally is what became of a herd's requests.
type tally struct {
	Requests, Failed uint64
	Told             uint64 // answers that said that the connection closes
	ClosedIdle       uint64 // connections that were closed while nobody asked
	Slowest          time.Duration
	Slow             uint64 // requests that took longer than 250 ms
	First            []string
}

type herd struct {
	orders  io.Writer
	answers *bufio.Reader
}

func startHerd(t *testing.T, of ...clients) *herd {
	t.Helper()
	spec, err := json.Marshal(of)
	apptest.Must(t, err)
	c := exec.Command("/proc/self/exe")
	c.Env = append(os.Environ(), apptest.RoleVariable+"=herd", "HERD="+string(spec), "GORACE=atexit_sleep_ms=0")
	c.Stderr = os.Stderr
	orders, err := c.StdinPipe()
	apptest.Must(t, err)
	answers, err := c.StdoutPipe()
	apptest.Must(t, err)
	apptest.Must(t, c.Start())
	t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
	})
	return &herd{orders, bufio.NewReader(answers)}
}

func (h *herd) ask(t *testing.T, order string) string {
	t.Helper()
	_, err := fmt.Fprintln(h.orders, order)
	apptest.Must(t, err)
	line, err := h.answers.ReadString('\n')
	apptest.Must(t, err)
	return strings.TrimSpace(line)
}

// goTo lets clients open their next connection somewhere.
func (h *herd) goTo(t *testing.T, addr string) { h.ask(t, "to "+addr) }

func (h *herd) tally(t *testing.T) (got tally) {
	t.Helper()
	apptest.Must(t, json.Unmarshal([]byte(h.ask(t, "tally")), &got))
	return got
}

// player is the herd's side.
type player struct {
	addr  atomic.Pointer[string]
	began sync.Once
	mu    sync.Mutex
	tally tally
}

func playHerd() {
	var of []clients
	if err := json.Unmarshal([]byte(environment("HERD")), &of); err != nil {
		fmt.Println(err)
		return
	}
	p := &player{}
	apptest.Obey(func(order string) string {
		word, rest, _ := strings.Cut(order, " ")
		if word == "tally" {
			p.mu.Lock()
			defer p.mu.Unlock()
			text, _ := json.Marshal(p.tally)
			return string(text)
		}
		p.addr.Store(&rest)
		p.began.Do(func() { p.start(of) })
		return "<nil>"
	})
}

func (p *player) start(of []clients) {
	for _, some := range of {
		for i := range some.Count {
			go p.play(some, i)
		}
	}
}

func (p *player) play(how clients, n int) {
	var c client
	time.Sleep(rand.N(min(how.Max, time.Second) + 1)) // not all connect at once
	for post := n%2 == 0; ; {
		begun := time.Now()
		closedIdle, told, err := c.exchange(*p.addr.Load(), post)
		p.count(time.Since(begun), closedIdle, told, err)
		think := how.Min
		if how.Max > how.Min {
			think += rand.N(how.Max - how.Min)
		}
		time.Sleep(max(think, failurePause(err)))
	}
}

func failurePause(err error) time.Duration {
	if err != nil {
		return 20 * time.Millisecond
	}
	return 0
}

func (p *player) count(took time.Duration, closedIdle, told bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tally.Requests++
	if closedIdle {
		p.tally.ClosedIdle++
	}
	if told {
		p.tally.Told++
	}
	if took > 250*time.Millisecond {
		p.tally.Slow++
	}
	p.tally.Slowest = max(p.tally.Slowest, took)
	if err != nil {
		p.tally.Failed++
		if len(p.tally.First) < 10 {
			p.tally.First = append(p.tally.First, fmt.Sprintf("%s after %v: %v", time.Now().Format("05.000"), took, err))
		}
	}
}

// client has a connection that it keeps until the server says otherwise.
type client struct {
	conn net.Conn
	in   *bufio.Reader
}

// exchange looks first whether the server has closed, as real clients do.
func (c *client) exchange(addr string, post bool) (closedIdle, told bool, err error) {
	if c.conn != nil && c.ended() {
		closedIdle = true
		c.close()
	}
	fresh := c.conn == nil
	if fresh {
		if c.conn, err = net.DialTimeout("tcp", addr, 10*time.Second); err != nil {
			c.conn = nil
			return closedIdle, false, fmt.Errorf("connect: %w", err)
		}
		c.in = bufio.NewReaderSize(c.conn, 1024)
	}
	told, err = c.ask(post)
	if told || err != nil {
		if err != nil {
			err = fmt.Errorf("%s, fresh %v, to %s: %w", c.conn.LocalAddr(), fresh, addr, err)
		}
		c.close()
	}
	return closedIdle, told, err
}

func (c *client) ended() bool {
	raw, err := c.conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		return true
	}
	var one [1]byte
	ended := false
	_ = raw.Control(func(fd uintptr) {
		_, _, err := unix.Recvfrom(int(fd), one[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		ended = err != unix.EAGAIN
	})
	return ended
}

func (c *client) close() {
	c.conn.Close()
	c.conn = nil
}

const hello = "hello\n"

func (c *client) ask(post bool) (told bool, err error) {
	_ = c.conn.SetDeadline(time.Now().Add(20 * time.Second))
	request := "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
	if post {
		request = "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: 6\r\n\r\n" + hello
	}
	if _, err := io.WriteString(c.conn, request); err != nil {
		return false, err
	}
	response, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return false, err
	}
	body, err := io.ReadAll(response.Body)
	if err == nil && (response.StatusCode != 200 || string(body) != hello) {
		err = errors.New(response.Status + " " + string(body))
	}
	return response.Close, err
}

func (t tally) String() string {
	return fmt.Sprintf("%d requests, %d failed, %d told, %d closed idle, %d slow, slowest %v %s",
		t.Requests, t.Failed, t.Told, t.ClosedIdle, t.Slow, t.Slowest.Round(time.Millisecond), cmp.Or(strings.Join(t.First, "\n  "), "-"))
}
