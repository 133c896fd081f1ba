// Package events has clients of server-sent events, for tests.
package events

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Last is the data of the event that followers read on to.
const Last = "the end"

// patience is for what has to come; nothing waits for its end in a test that passes.
const patience = 60 * time.Second

// Followers are clients that read the same events.
type Followers struct {
	running sync.WaitGroup
	all     []*follower
}

// Follow starts n clients that get the events after the one with an ID, or those that come next if it is empty.
func Follow(n int, addr, path, after string) *Followers {
	fs := &Followers{}
	for range n {
		f := &follower{addr: addr, path: path, lastID: after, placed: make(chan struct{})}
		fs.all = append(fs.all, f)
		fs.running.Go(func() { f.err = f.follow() })
	}
	return fs
}

// AwaitPlaces returns when each has got an event, or the ID of the one that it stands at.
func (fs *Followers) AwaitPlaces(t *testing.T) {
	t.Helper()
	deadline := time.After(patience)
	for _, f := range fs.all {
		select {
		case <-f.placed:
		case <-deadline:
			t.Fatal("a follower does not get its place")
		}
	}
}

// Wait returns when each has read Last or has failed.
func (fs *Followers) Wait() { fs.running.Wait() }

// Check comes after Wait, and wants each to have read these lines in this order, over several streams.
func (fs *Followers) Check(t *testing.T, want []string) {
	t.Helper()
	streams := 0
	for n, f := range fs.all {
		streams += f.streams
		if f.err != nil {
			t.Errorf("follower %d: %v", n, f.err)
		}
		if !slices.Equal(f.lines, want) {
			t.Errorf("follower %d has %d lines, not these %d: %s", n, len(f.lines), len(want), firstDifference(f.lines, want))
		}
		if f.streams < 2 {
			t.Errorf("follower %d was never asked to come back", n)
		}
	}
	t.Logf("SSE: %d followers of %d events, over %d streams", len(fs.all), len(want), streams)
}

func firstDifference(got, want []string) string {
	for n := range min(len(got), len(want)) {
		if got[n] != want[n] {
			return fmt.Sprintf("line %d is %q and not %q", n, got[n], want[n])
		}
	}
	return "one is the beginning of the other"
}

// follower is what an EventSource is, without its patience: a stream that is cut is an error.
type follower struct {
	addr, path string
	placed     chan struct{} // closed when it has an ID from the server
	lines      []string
	streams    int
	lastID     string
	retry      time.Duration
	err        error // of follow
}

func (f *follower) follow() error {
	for {
		done, err := f.stream()
		if err != nil || done {
			return err
		}
		if f.retry > time.Second {
			return fmt.Errorf("the stream ended with a wait of %v", f.retry)
		}
		time.Sleep(f.retry) // as the server wants it
	}
}

func (f *follower) stream() (done bool, err error) {
	conn, err := net.Dial("tcp", f.addr)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: test\r\nAccept: text/event-stream\r\n", f.path)
	if f.lastID != "" {
		fmt.Fprintf(conn, "Last-Event-ID: %s\r\n", f.lastID)
	}
	fmt.Fprint(conn, "\r\n")
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return false, fmt.Errorf("stream %d gets no answer after event %q: %w", f.streams+1, f.lastID, err)
	}
	if response.StatusCode != http.StatusOK || !response.Close {
		return false, fmt.Errorf("status %s, closes %v", response.Status, response.Close)
	}
	f.streams++
	return f.read(conn, bufio.NewReader(response.Body))
}

// read returns at the end of the stream. One that is cut ends with another error than io.EOF.
func (f *follower) read(conn net.Conn, r *bufio.Reader) (done bool, err error) {
	var data string
	for {
		conn.SetReadDeadline(time.Now().Add(patience))
		line, err := r.ReadString('\n')
		if errors.Is(err, io.EOF) && line == "" {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("stream %d is cut after event %q: %w", f.streams, f.lastID, err)
		}
		field, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch field {
		case "data":
			data = value
		case "id":
			f.place(value)
		case "retry":
			f.wait(value)
		case "":
			if f.take(data) {
				return true, nil
			}
			data = ""
		}
	}
}

func (f *follower) place(id string) {
	select {
	case <-f.placed:
	default:
		close(f.placed)
	}
	f.lastID = id
}

func (f *follower) wait(milliseconds string) {
	ms, err := strconv.Atoi(milliseconds)
	if err != nil {
		ms = 1 << 30
	}
	f.retry = time.Duration(ms) * time.Millisecond
}

func (f *follower) take(data string) (done bool) {
	if data != "" {
		f.lines = append(f.lines, data)
	}
	return data == Last
}
