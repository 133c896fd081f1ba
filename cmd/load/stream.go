package load

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// follow keeps one event stream open: it opens another when the server has ended one in an orderly way.
func (l *Load) follow() {
	var last int
	for {
		begun := l.begin()
		s, err := l.open(last)
		if l.soft.Err() != nil {
			s.close()
			return
		}
		l.end(Stream, begun, s.source, err)
		if err == nil {
			last, err = l.read(s, last)
			s.close()
			if l.soft.Err() != nil {
				return
			}
			l.ended(err)
		}
		if !l.pause(err) {
			return
		}
	}
}

func (l *Load) ended(err error) {
	if err != nil {
		l.cut(Stream, err)
		return
	}
	l.reconnected(Stream)
}

// stream is one response that brings events.
type stream struct {
	conn   *conn
	source Source
	lines  *bufio.Reader
}

func (s stream) close() {
	if s.conn != nil {
		s.conn.Close()
	}
}

// open asks for the events after the last one that was seen.
func (l *Load) open(last int) (stream, error) {
	c, err := dial(l.soft, l.cfg)
	if err != nil {
		return stream{}, err
	}
	s := stream{conn: c}
	request := fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: load\r\nAccept: text/event-stream\r\n", l.cfg.path(Stream))
	if last > 0 {
		request = fmt.Appendf(request, "Last-Event-ID: %d\r\n", last)
	}
	if err := c.send(append(request, "\r\n"...), l.cfg.Timeout); err != nil {
		return s.failed(err)
	}
	response, err := readResponse(c)
	if err != nil {
		return s.failed(err)
	}
	if response.StatusCode != http.StatusOK {
		return s.failed(fail(BadStatus, "%s", response.Status))
	}
	s.source = sourceOf(response)
	s.lines = bufio.NewReader(response.Body)
	return s, nil
}

func (s stream) failed(err error) (stream, error) {
	err = s.conn.broke(err)
	s.close()
	return stream{}, err
}

// read counts events until the stream ends, and returns the number of the last one. The error is nil when the server ended the
// stream between two events. A number 1 begins a new count: not every server goes on after Last-Event-ID.
func (l *Load) read(s stream, last int) (int, error) {
	for {
		s.conn.SetReadDeadline(time.Now().Add(l.cfg.Timeout))
		id, err := s.event()
		if errors.Is(err, io.EOF) {
			return last, nil
		}
		if err != nil {
			return last, s.conn.broke(err)
		}
		l.event(Stream)
		if id == 0 {
			continue
		}
		if id != 1 && last > 0 && id != last+1 {
			return id, s.conn.broke(fail(Lost, "event %d came after event %d", id, last))
		}
		last = id
	}
}

// event reads up to the end of one event and returns its number, or 0 where it has none. It returns io.EOF when the stream was
// ended between events.
func (s stream) event() (id int, err error) {
	var data bool
	for {
		line, err := s.lines.ReadString('\n')
		if err != nil {
			return 0, streamEnd(err, data || line != "")
		}
		line = strings.TrimRight(line, "\r\n")
		switch {
		case line == "" && data:
			return id, nil
		case strings.HasPrefix(line, "data:"):
			data = true
		case strings.HasPrefix(line, "id:"):
			id, _ = strconv.Atoi(strings.TrimSpace(line[len("id:"):]))
		}
	}
}

func streamEnd(err error, inEvent bool) error {
	if err == io.EOF && inEvent {
		return fail(Short, "the stream ended in the middle of an event")
	}
	if err == io.EOF {
		return err
	}
	return fmt.Errorf("the stream broke: %w", err)
}
