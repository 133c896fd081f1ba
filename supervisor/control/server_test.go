package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// backend answers as a test wants, and remembers what it was asked.
type backend struct {
	mutex  sync.Mutex
	asked  []Request
	answer func(ctx context.Context, r Request) (<-chan Line, error)
	status func(ctx context.Context) (Status, error)
}

func (b *backend) Status(ctx context.Context) (Status, error) {
	if b.status != nil {
		return b.status(ctx)
	}
	return Status{Version: Protocol, Name: "web", PID: os.Getpid(), Current: 3}, nil
}

func (b *backend) Ask(ctx context.Context, r Request) (<-chan Line, error) {
	b.mutex.Lock()
	b.asked = append(b.asked, r)
	b.mutex.Unlock()
	if b.answer != nil {
		return b.answer(ctx, r)
	}
	return said(Line{Report: &Report{Text: "starting"}}, Line{Result: &Result{Outcome: Upgraded, Generation: 4, Serving: 4, Took: 0.5}}), nil
}

func (b *backend) requests() []Request {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return b.asked
}

// said is an answer that was all ready.
func said(lines ...Line) <-chan Line {
	c := make(chan Line, len(lines))
	for _, l := range lines {
		c <- l
	}
	close(c)
	return c
}

// started has a server answer at the path that it returns, for as long as the test runs.
func started(t testing.TB, b Backend, most limits) (path string, s *Server) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "web.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	s = serve(l, b, most)
	t.Cleanup(sync.OnceFunc(func() { _ = s.http.Close() }))
	return path, s
}

func client(t testing.TB, path string) *Client {
	c := NewClient(path)
	t.Cleanup(c.Close)
	return c
}

func connect(t testing.TB, path string) *net.UnixConn {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return c.(*net.UnixConn)
}

func TestStatus(t *testing.T) {
	none := 0
	want := Status{
		Version: 1, Grace: "v1", Name: "web", PID: 7, Started: time.Unix(5, 0).UTC(), State: "serving", Current: 2,
		Generations: []Generation{{Number: 2, Phase: "current", Command: []string{"./app", "<&>"}, Connections: &none, Instances: []Instance{{ID: 4, PID: 9, CPU: 0.25}}}},
		Listeners:   []Listener{{Network: "tcp", Address: ":80", Kind: "held", Queue: &none}},
		Upgrades:    []UpgradeRecord{{Generation: 2, From: 1, Took: 0.5, Outcome: Upgraded}},
	}
	path, _ := started(t, &backend{status: func(context.Context) (Status, error) { return want, nil }}, defaultLimits)
	c := client(t, path)
	for range 2 { // by the same connection
		if got, err := c.Status(t.Context()); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, %v", got, err)
		}
	}
}

func TestUpgrade(t *testing.T) {
	b := &backend{}
	path, _ := started(t, b, defaultLimits)
	a, err := client(t, path).Ask(t.Context(), Request{Do: Upgrade, Command: []string{"./app", "-v", "2"}})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	var reports []Report
	got, err := a.Wait(func(r Report) { reports = append(reports, r) })
	if want := (Result{Outcome: Upgraded, Generation: 4, Serving: 4, Took: 0.5}); err != nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
	if len(reports) != 1 || reports[0].Text != "starting" {
		t.Errorf("reports: %+v", reports)
	}
	if want := []Request{{Do: Upgrade, Command: []string{"./app", "-v", "2"}}}; !reflect.DeepEqual(b.requests(), want) {
		t.Errorf("asked for %+v", b.requests())
	}
}

// What a program that is no Client sends, byte by byte.
func TestRequests(t *testing.T) {
	post := func(path, body string) string {
		return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: grace\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body)
	}
	huge := `{"command":["` + strings.Repeat("x", maxBody) + `"]}`
	for name, c := range map[string]struct {
		sent   string
		status int
		says   string
		asked  []Request
	}{
		"upgrade":                {post("/v1/upgrade", ""), 200, `"outcome":"upgraded"`, []Request{{Do: Upgrade}}},
		"upgrade to a command":   {post("/v1/upgrade", `{"command":["a","b"]}`), 200, "upgraded", []Request{{Do: Upgrade, Command: []string{"a", "b"}}}},
		"rollback":               {post("/v1/rollback", "{}"), 200, "upgraded", []Request{{Do: Rollback}}},
		"stop":                   {post("/v1/stop", " {} \n"), 200, "upgraded", []Request{{Do: Stop}}},
		"stop now":               {post("/v1/stop", `{"now":true}`), 200, "upgraded", []Request{{Do: Stop, Now: true}}},
		"reexec":                 {post("/v1/reexec", ""), 200, "upgraded", []Request{{Do: Reexec}}},
		"status":                 {"GET /v1/status HTTP/1.0\r\n\r\n", 200, `"version":1`, nil},
		"only the head":          {"HEAD /v1/status HTTP/1.0\r\n\r\n", 200, "", nil},
		"another version":        {post("/v2/upgrade", ""), 404, "no such path (there are GET /v1/status", nil},
		"no path":                {"GET / HTTP/1.0\r\n\r\n", 404, "no such path", nil},
		"another method":         {"GET /v1/upgrade HTTP/1.0\r\n\r\n", 405, "/v1/upgrade takes POST, not GET", nil},
		"status by post":         {post("/v1/status", ""), 405, "takes GET", nil},
		"unknown field":          {post("/v1/upgrade", `{"comand":["a"]}`), 400, `unknown field \"comand\"`, nil},
		"a field of another":     {post("/v1/rollback", `{"command":["a"]}`), 400, "unknown field", nil},
		"another type":           {post("/v1/upgrade", `{"command":"./app"}`), 400, "cannot unmarshal string", nil},
		"empty command":          {post("/v1/upgrade", `{"command":[]}`), 400, "command is empty", nil},
		"empty program":          {post("/v1/upgrade", `{"command":[""]}`), 400, "command is empty", nil},
		"NUL":                    {post("/v1/upgrade", `{"command":["a\u0000"]}`), 400, "NUL", nil},
		"no JSON":                {post("/v1/upgrade", `command=a`), 400, "invalid character", nil},
		"half an object":         {post("/v1/stop", `{"now":true`), 400, "unexpected EOF", nil},
		"two objects":            {post("/v1/stop", `{}{"now":true}`), 400, "more than one", nil},
		"huge body":              {post("/v1/upgrade", huge), 413, "too large", nil},
		"huge body after a good": {post("/v1/upgrade", `{}`+strings.Repeat(" ", maxBody)), 413, "too large", nil},
		"huge header":            {"GET /v1/status HTTP/1.0\r\nA: " + strings.Repeat("x", 2*maxHeader), 431, "", nil},
		"no HTTP":                {"status\r\n\r\n", 400, "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := &backend{}
			path, _ := started(t, b, defaultLimits)
			conn := connect(t, path)
			go io.WriteString(conn, c.sent)
			checkResponse(t, conn, c.status, c.says)
			if got := b.requests(); !reflect.DeepEqual(got, c.asked) {
				t.Errorf("the backend was asked for %+v", got)
			}
		})
	}
}

func checkResponse(t *testing.T, conn net.Conn, status int, says string) {
	t.Helper()
	r, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, _ := io.ReadAll(r.Body)
	if r.StatusCode != status || !strings.Contains(string(body), says) {
		t.Errorf("%s: %s", r.Status, body)
	}
	var f failure
	if ours := says != "" && status != 200; ours && (json.Unmarshal(body, &f) != nil || f.Error == "") {
		t.Errorf("the error is not told in JSON: %s", body)
	}
}

func TestErrorsOfTheBackend(t *testing.T) {
	path, _ := started(t, &backend{
		status: func(context.Context) (Status, error) { return Status{}, errors.New("busy") },
		answer: func(context.Context, Request) (<-chan Line, error) { return nil, errors.New("grace is stopping") },
	}, defaultLimits)
	c := client(t, path)
	var refused *RefusedError
	if _, err := c.Status(t.Context()); !errors.As(err, &refused) || *refused != (RefusedError{Code: 503, Why: "busy"}) {
		t.Errorf("status: %v", err)
	}
	if _, err := c.Ask(t.Context(), Request{Do: Stop}); !errors.As(err, &refused) || *refused != (RefusedError{Code: 409, Why: "grace is stopping"}) {
		t.Errorf("stop: %v", err)
	}
}

// While one grace takes over from another, clients get the answer of the second.
func TestClientAsksOnceMore(t *testing.T) {
	for name, ask := range map[string]func(c *Client) error{
		"status": func(c *Client) error { _, err := c.Status(t.Context()); return err },
		"upgrade": func(c *Client) error {
			answer, err := c.Ask(t.Context(), Request{Do: Upgrade})
			if err == nil {
				err = answer.Close()
			}
			return err
		},
	} {
		t.Run(name+" of a grace process that is being replaced", func(t *testing.T) {
			left := false
			leaving := func() (err error) {
				if !left {
					err = ErrLeaving
				}
				left = true
				return err
			}
			path, _ := started(t, &backend{
				status: func(context.Context) (Status, error) { return Status{}, leaving() },
				answer: func(context.Context, Request) (<-chan Line, error) { return said(), leaving() },
			}, defaultLimits)
			if err := ask(client(t, path)); err != nil || !left {
				t.Error(err)
			}
		})
		t.Run(name+" of a grace process that was replaced", func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "web.sock")
			l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
			if err != nil {
				t.Fatal(err)
			}
			asked := make(chan error, 1)
			go func() { asked <- ask(client(t, path)) }()
			cut, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			cut.Close()
			s := serve(l, &backend{}, defaultLimits)
			defer s.http.Close()
			if err := <-asked; err != nil {
				t.Error(err)
			}
		})
	}
}

// Where nobody comes after it, the first answer counts.
func TestClientOfAGraceThatEnds(t *testing.T) {
	asked := make(chan struct{}, 1000)
	path, s := started(t, &backend{status: func(context.Context) (Status, error) {
		asked <- struct{}{}
		return Status{}, ErrLeaving
	}}, defaultLimits)
	failed := make(chan error, 1)
	go func() {
		_, err := client(t, path).Status(t.Context())
		failed <- err
	}()
	<-asked
	<-asked
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := <-failed; !errors.Is(err, ErrLeaving) {
		t.Error(err)
	}
}

// All clients wait for the same upgrade; one that asks for status does not.
func TestManyClients(t *testing.T) {
	const clients = 100
	var waiting sync.WaitGroup
	waiting.Add(clients)
	ready := make(chan struct{})
	path, _ := started(t, &backend{answer: func(context.Context, Request) (<-chan Line, error) {
		c := make(chan Line)
		go func() {
			defer close(c)
			c <- Line{Report: &Report{Text: "starting"}}
			waiting.Done()
			<-ready
			c <- Line{Result: &Result{Outcome: Upgraded}}
		}()
		return c, nil
	}}, defaultLimits)
	var done sync.WaitGroup
	for range clients {
		done.Go(func() {
			a, err := client(t, path).Ask(t.Context(), Request{Do: Upgrade})
			if err != nil {
				t.Error(err)
				return
			}
			defer a.Close()
			if r, err := a.Wait(func(Report) {}); err != nil || r.Outcome != Upgraded {
				t.Errorf("%+v, %v", r, err)
			}
		})
	}
	waiting.Wait()
	if _, err := client(t, path).Status(t.Context()); err != nil {
		t.Error(err)
	}
	close(ready)
	done.Wait()
}

func TestMoreAnswersThanThereArePlaces(t *testing.T) {
	few := defaultLimits
	few.answers = 1
	never := make(chan Line)
	path, _ := started(t, &backend{answer: func(context.Context, Request) (<-chan Line, error) { return never, nil }}, few)
	a, err := client(t, path).Ask(t.Context(), Request{Do: Upgrade})
	if err != nil {
		t.Fatal(err)
	}
	var refused *RefusedError
	if _, err := client(t, path).Ask(t.Context(), Request{Do: Upgrade}); !errors.As(err, &refused) || refused.Code != 503 {
		t.Errorf("the second one: %v", err)
	}
	a.Close()
	eventually(t, func() bool {
		a, err := client(t, path).Ask(t.Context(), Request{Do: Upgrade})
		if err == nil {
			a.Close()
		}
		return err == nil
	})
}

// eventually asks again until a deadline that only a defect reaches.
func eventually(t *testing.T, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it has not come about in a minute")
		}
	}
}

// A connection beyond the most takes the place of the one that has been silent for longest.
func TestMoreConnectionsThanThereArePlaces(t *testing.T) {
	few := defaultLimits
	few.connections, few.idle, few.read = 2, time.Minute, time.Minute
	path, _ := started(t, &backend{}, few)
	const request = "GET /v1/status HTTP/1.1\r\nHost: grace\r\n\r\n"
	ask := func(c net.Conn) {
		t.Helper()
		if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c, request); err != nil {
			t.Fatal(err)
		}
		checkResponse(t, c, 200, "web")
	}
	silent, asking := connect(t, path), connect(t, path)
	ask(asking)
	ask(connect(t, path))
	if err := silent.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if n, err := silent.Read(make([]byte, 1)); n != 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the silent one has its place still: %d bytes, %v", n, err)
	}
	ask(asking)
}

// Of those that are being answered none loses its place.
func TestMoreConnectionsThanAreAnswered(t *testing.T) {
	few := defaultLimits
	few.connections, few.answers = 1, 1
	never := make(chan Line)
	path, _ := started(t, &backend{answer: func(context.Context, Request) (<-chan Line, error) { return never, nil }}, few)
	a, err := client(t, path).Ask(t.Context(), Request{Do: Upgrade})
	if err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := client(t, path).Status(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the second one was served: %v", err)
	}
	a.Close()
	long, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := client(t, path).Status(long); err != nil {
		t.Error(err)
	}
}

// Requests that never come to their end are given up.
func TestHalfMessages(t *testing.T) {
	hasty := defaultLimits
	hasty.read, hasty.idle = 3*time.Second, 3*time.Second
	for name, c := range map[string]struct {
		sent   string
		status int // 0: the connection just ends
	}{
		"nothing":                {"", 0},
		"a header":               {"GET /v1/status HTTP/1.1\r\nHost:", 0},
		"half a body":            {"POST /v1/upgrade HTTP/1.1\r\nHost: grace\r\nContent-Length: 100\r\n\r\n{\"com", 408},
		"half a body to nowhere": {"POST /v1 HTTP/1.1\r\nHost: grace\r\nContent-Length: 100\r\n\r\n{\"com", 404},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := &backend{}
			path, _ := started(t, b, hasty)
			conn := connect(t, path)
			if _, err := io.WriteString(conn, c.sent); err != nil {
				t.Fatal(err)
			}
			if c.status != 0 {
				checkResponse(t, conn, c.status, "{\"error\":")
			}
			if _, err := io.Copy(io.Discard, conn); err != nil {
				t.Errorf("it has not ended: %v", err)
			}
			if len(b.requests()) != 0 {
				t.Error("something was begun")
			}
		})
	}
}

// The answer to a client that does not read ends, and others do not wait for that.
func TestClientThatNeverReads(t *testing.T) {
	t.Parallel()
	hasty := defaultLimits
	hasty.write = time.Second
	gone := make(chan struct{})
	path, _ := started(t, &backend{answer: func(ctx context.Context, _ Request) (<-chan Line, error) {
		c := make(chan Line)
		go func() {
			defer close(gone)
			text := strings.Repeat("x", 10_000)
			for {
				select {
				case c <- Line{Report: &Report{Text: text}}:
				case <-ctx.Done():
					return
				}
			}
		}()
		return c, nil
	}}, hasty)
	if _, err := io.WriteString(connect(t, path), "POST /v1/upgrade HTTP/1.1\r\nHost: grace\r\nContent-Length: 0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := client(t, path).Status(t.Context()); err != nil {
		t.Error(err)
	}
	select {
	case <-gone:
	case <-time.After(time.Minute):
		t.Error("the answer still waits for its reader")
	}
}

// The limits are for a message, not for an answer that takes its time.
func TestAnswerThatTakesLong(t *testing.T) {
	t.Parallel()
	hasty := defaultLimits
	hasty.read, hasty.write, hasty.idle = 3*time.Second, 3*time.Second, 3*time.Second
	path, _ := started(t, &backend{answer: func(context.Context, Request) (<-chan Line, error) {
		c := make(chan Line)
		go func() {
			defer close(c)
			time.Sleep(hasty.write + hasty.write/10)
			c <- Line{Result: &Result{Outcome: Upgraded}}
		}()
		return c, nil
	}}, hasty)
	conn := connect(t, path)
	if _, err := io.WriteString(conn, "POST /v1/upgrade HTTP/1.1\r\nHost: grace\r\nContent-Length: 0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	checkResponse(t, conn, 200, "upgraded")
}

func TestBackendKnowsThatItsReaderIsGone(t *testing.T) {
	gone := make(chan struct{})
	path, _ := started(t, &backend{answer: func(ctx context.Context, _ Request) (<-chan Line, error) {
		go func() {
			<-ctx.Done()
			close(gone)
		}()
		return make(chan Line), nil
	}}, defaultLimits)
	a, err := client(t, path).Ask(t.Context(), Request{Do: Upgrade})
	if err != nil {
		t.Fatal(err)
	}
	a.Close()
	select {
	case <-gone:
	case <-time.After(time.Minute):
		t.Error("it does not")
	}
}

// A result that is there when the server is closed reaches its reader, to the last byte.
func TestCloseLetsResultsOut(t *testing.T) {
	lines := make(chan Line)
	path, s := started(t, &backend{answer: func(context.Context, Request) (<-chan Line, error) { return lines, nil }}, defaultLimits)
	conn := connect(t, path)
	if _, err := io.WriteString(conn, "POST /v1/stop HTTP/1.1\r\nHost: grace\r\nContent-Length: 0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	lines <- Line{Report: &Report{Text: "stopping"}}
	ended := make(chan error)
	go func() { ended <- s.Close() }()
	lines <- Line{Result: &Result{Outcome: Stopped}}
	close(lines)
	checkResponse(t, conn, 200, `{"result":{"outcome":"stopped","serving":0,"took":0}}`)
	if _, err := io.Copy(io.Discard, conn); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestCloseDoesNotWaitForEver(t *testing.T) {
	hasty := defaultLimits
	hasty.close = 10 * time.Millisecond
	path, s := started(t, &backend{answer: func(context.Context, Request) (<-chan Line, error) { return make(chan Line), nil }}, hasty)
	half := connect(t, path)
	if _, err := io.WriteString(half, "POST"); err != nil {
		t.Fatal(err)
	}
	a, err := client(t, path).Ask(t.Context(), Request{Do: Upgrade})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := a.Wait(func(Report) {}); !errors.Is(err, ErrCut) {
		t.Errorf("the client was told %v", err)
	}
	if _, err := io.Copy(io.Discard, half); err != nil && !errors.Is(err, unix.ECONNRESET) {
		t.Error(err)
	}
}
