package farewell

import (
	"bufio"
	"bytes"
	"errors"
	"slices"
	"strings"
)

// headAtMost is more than servers take.
const headAtMost = 64 << 10

var (
	errNoRequest   = errors.New("what came is no request of HTTP/1")
	errHeadTooLong = errors.New("a request's head is longer than 64 KB")
)

// readHead reads the head of a request up to its empty line, and returns one that says that the connection closes after the
// answer. What came behind stays in the reader.
func readHead(in *bufio.Reader) ([]byte, error) {
	request, err := readLine(in, headAtMost)
	if err != nil {
		return nil, err
	}
	if !bytes.Contains(request, []byte(" HTTP/1.")) {
		return nil, errNoRequest
	}
	rest := []byte{}
	var options []string
	for left := headAtMost - len(request); ; {
		line, err := readLine(in, left)
		if err != nil {
			return nil, err
		}
		left -= len(line)
		if len(bytes.TrimRight(line, "\r\n")) == 0 {
			return slices.Concat(request, connectionHeader(options), rest, line), nil
		}
		if name, value, _ := bytes.Cut(line, []byte(":")); bytes.EqualFold(name, []byte("connection")) {
			options = append(options, strings.Split(string(value), ",")...)
			continue
		}
		rest = append(rest, line...)
	}
}

// readLine reads a line that may be longer than the reader's buffer.
func readLine(in *bufio.Reader, atMost int) ([]byte, error) {
	var whole []byte
	for {
		line, err := in.ReadSlice('\n')
		whole = append(whole, line...)
		switch {
		case len(whole) > atMost:
			return nil, errHeadTooLong
		case err == nil:
			return whole, nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, err
		}
	}
}

// connectionHeader makes one header of all that a request had of the name. The names of further headers are kept. Who asks for
// another protocol is not told that the connection closes: then it would not be had.
func connectionHeader(options []string) []byte {
	kept := []string{"close"}
	for _, option := range options {
		option = strings.TrimSpace(option)
		switch strings.ToLower(option) {
		case "", "close", "keep-alive":
		case "upgrade":
			kept[0] = option
		default:
			kept = append(kept, option)
		}
	}
	return []byte("Connection: " + strings.Join(kept, ", ") + "\r\n")
}
