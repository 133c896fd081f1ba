package sse

import (
	"bufio"
	"io"
	"strconv"
	"strings"
	"time"
)

// parser reads a stream as https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
// says, without the decoding of UTF-8.
type parser struct {
	r        *bufio.Reader
	lastID   string
	retry    time.Duration
	comments []string
}

type message struct{ id, name, data string }

func newParser(r io.Reader) *parser { return &parser{r: bufio.NewReader(r), retry: -1} }

// next returns the next message, or an error if the stream ends before.
func (p *parser) next() (message, error) {
	name, data := "", ""
	for {
		line, err := p.line()
		switch {
		case err != nil:
			return message{}, err
		case line == "" && data == "":
			name = ""
			continue
		case line == "":
			return message{p.lastID, orMessage(name), strings.TrimSuffix(data, "\n")}, nil
		}
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch field {
		case "":
			p.comments = append(p.comments, value)
		case "event":
			name = value
		case "data":
			data += value + "\n"
		default:
			p.set(field, value)
		}
	}
}

func orMessage(name string) string {
	if name == "" {
		return "message"
	}
	return name
}

func (p *parser) set(field, value string) {
	switch field {
	case "id":
		if !strings.Contains(value, "\x00") {
			p.lastID = value
		}
	case "retry":
		if ms, err := strconv.ParseUint(value, 10, 32); err == nil && value[0] != '+' {
			p.retry = time.Duration(ms) * time.Millisecond
		}
	}
}

// line ends by CR, LF or CRLF.
func (p *parser) line() (string, error) {
	var line []byte
	for {
		c, err := p.r.ReadByte()
		switch {
		case err != nil:
			return "", err
		case c == '\n':
			return string(line), nil
		case c == '\r':
			if after, err := p.r.Peek(1); err == nil && after[0] == '\n' {
				p.r.Discard(1)
			}
			return string(line), nil
		}
		line = append(line, c)
	}
}
