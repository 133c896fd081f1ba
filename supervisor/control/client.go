package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	headerLimit   = 30 * time.Second // for a server to begin its answer: during a reexec grace accepts no request
	maxLine       = 4 << 20          // of an answer, which may be another user's: a thousand sockets take 200 KB
	maxHead       = 64 << 10
	retryLimit    = 5 * time.Second // for a successor to answer
	retryInterval = 20 * time.Millisecond
)

// Client asks the grace process that listens at a path. Many goroutines may use it at once.
type Client struct {
	http *http.Client
	path string
}

// NewClient connects when it is asked for something.
func NewClient(path string) *Client {
	transport := &http.Transport{
		DialContext:           func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, path) },
		ResponseHeaderTimeout: headerLimit, MaxResponseHeaderBytes: maxHead,
	}
	return &Client{http: &http.Client{Transport: transport}, path: path}
}

// Close ends the connections that are not in use.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// RefusedError is an answer that says why there is none.
type RefusedError struct {
	Code  int // of HTTP
	Why   string
	again bool
}

func (e *RefusedError) Error() string { return e.Why }

// Is reports whether the grace process ends or is being replaced, as [ErrLeaving].
func (e *RefusedError) Is(target error) bool { return e.again && target == ErrLeaving }

// Status asks for the status at this moment.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var s Status
	body, err := c.send(ctx, http.MethodGet, statusPath, nil)
	if err != nil {
		return s, err
	}
	defer body.Close()
	answer := &io.LimitedReader{R: body, N: maxLine}
	err = json.NewDecoder(answer).Decode(&s)
	if answer.N == 0 {
		err = fmt.Errorf("it has more than %d bytes", maxLine)
	}
	if err != nil {
		return Status{}, fmt.Errorf("cannot read the status at %s: %w", c.path, err)
	}
	return s, nil
}

// Ask returns when the request was accepted. A *RefusedError says why it was not.
// The caller closes the answer; what was begun goes on even so.
func (c *Client) Ask(ctx context.Context, r Request) (*Answer, error) {
	said := map[string]any{}
	if r.Command != nil {
		said["command"] = r.Command
	}
	for key, value := range map[string]string{"canary": r.Canary, "max_surge": r.MaxSurge} {
		if value != "" {
			said[key] = value
		}
	}
	if r.Instances != 0 {
		said["instances"] = r.Instances
	}
	if r.Fully {
		said["fully"] = true
	}
	if r.Now {
		said["now"] = true
	}
	if r.Signal != 0 {
		said["signal"] = strconv.Itoa(int(r.Signal))
	}
	text, err := json.Marshal(said)
	if err != nil {
		return nil, fmt.Errorf("cannot write the request: %w", err)
	}
	body, err := c.send(ctx, http.MethodPost, path(r.Do), text)
	if err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, maxLine)
	return &Answer{body: body, lines: lines}, nil
}

// send asks once more where one grace takes over from another.
func (c *Client) send(ctx context.Context, method, path string, text []byte) (io.ReadCloser, error) {
	var first error
	for limit := time.Now().Add(retryLimit); ; {
		body, err := c.sendOnce(ctx, method, path, text)
		switch {
		case err == nil:
			return body, nil
		case first != nil && nobodyListens(err):
			return nil, first
		case !mayRetry(err) || time.Now().After(limit):
			return nil, err
		}
		if first == nil {
			first = err
		}
		select {
		case <-time.After(retryInterval):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// mayRetry reports whether nothing was begun, and another grace process may listen soon.
func mayRetry(err error) bool {
	// net/http has no name for the end of a connection before anything was written.
	const cut = "server closed idle connection"
	return errors.Is(err, ErrLeaving) || errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) ||
		strings.Contains(err.Error(), cut)
}

// nobodyListens reports whether nobody listens.
func nobodyListens(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)
}

func (c *Client) sendOnce(ctx context.Context, method, path string, text []byte) (io.ReadCloser, error) {
	request, err := http.NewRequestWithContext(ctx, method, "http://grace"+path, bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, fmt.Errorf("cannot reach grace at %s: %w", c.path, errors.Unwrap(err)) // what is around it names a URL
	}
	if response.StatusCode == http.StatusOK {
		return response.Body, nil
	}
	defer response.Body.Close()
	var f failure
	if err := json.NewDecoder(io.LimitReader(response.Body, maxHead)).Decode(&f); err != nil || f.Error == "" {
		f.Error = "HTTP status " + response.Status
	}
	return nil, &RefusedError{Code: response.StatusCode, Why: f.Error, again: response.Header.Get(askAgain) != ""}
}

// Answer is what comes back while a request is worked on. It is for one goroutine.
type Answer struct {
	body  io.ReadCloser
	lines *bufio.Scanner
}

// ErrCut is an answer that has ended without a result: grace itself has ended, or the
// connection has.
var ErrCut = errors.New("grace ended before it sent the result")

// Wait calls told with each report until the result comes. ErrCut says that none will.
func (a *Answer) Wait(told func(Report)) (Result, error) {
	for a.lines.Scan() {
		var l Line
		if err := json.Unmarshal(a.lines.Bytes(), &l); err != nil {
			return Result{}, fmt.Errorf("cannot read the answer: %w", err)
		}
		if l.Report != nil {
			told(*l.Report)
		}
		if l.Result != nil {
			return *l.Result, nil
		}
	}
	if err := a.lines.Err(); err != nil {
		return Result{}, fmt.Errorf("%w: %w", ErrCut, err)
	}
	return Result{}, ErrCut
}

// Close ends the connection.
func (a *Answer) Close() error { return a.body.Close() }
