//go:build linux

package main

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

// followers read the journal from its beginning to its last line.
type followers struct {
	running sync.WaitGroup
	all     []*follower
}

const lastLine = "the end"

func startFollowers(addr string) *followers {
	fs := &followers{}
	for range 8 {
		f := &follower{addr: addr, lastID: "0"}
		fs.all = append(fs.all, f)
		fs.running.Go(func() { f.err = f.follow() })
	}
	return fs
}

// finish writes the last line, and returns when all have read it or have failed.
func (fs *followers) finish(t *testing.T, addr string) {
	t.Helper()
	response, err := http.Post("http://"+addr+"/entries", "text/plain", strings.NewReader(lastLine))
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	fs.running.Wait()
}

func (fs *followers) check(t *testing.T, j *entries) {
	t.Helper()
	streams := 0
	for n, f := range fs.all {
		streams += f.streams
		if f.err != nil {
			t.Errorf("follower %d: %v", n, f.err)
		}
		if !slices.Equal(f.lines, j.lines) {
			t.Errorf("follower %d has %d lines, not these %d: %s", n, len(f.lines), len(j.lines), firstDifference(f.lines, j.lines))
		}
		if f.streams < 2 {
			t.Errorf("follower %d was never asked to come back", n)
		}
	}
	t.Logf("SSE: %d followers of %d events, over %d streams", len(fs.all), len(j.lines), streams)
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
	addr    string
	lines   []string
	streams int
	lastID  string
	retry   time.Duration
	err     error // of follow
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
	fmt.Fprintf(conn, "GET /events HTTP/1.1\r\nHost: test\r\nAccept: text/event-stream\r\nLast-Event-ID: %s\r\n\r\n", f.lastID)
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return false, err
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
			return false, err
		}
		field, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch field {
		case "data":
			data = value
		case "id":
			f.lastID = value
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
	return data == lastLine
}
