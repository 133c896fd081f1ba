package load

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"strconv"
)

// httpClient sends HTTP/1.1 requests of one kind.
type httpClient struct {
	link
	kind    Kind
	keep    bool // the connection, between requests
	sent    int
	request []byte
	payload []byte // of the request; what has to come back
	body    bytes.Buffer
}

func newHTTPClient(l *Load, kind Kind) *httpClient {
	return &httpClient{link: link{load: l}, kind: kind, keep: kind == KeepAliveGet || kind == KeepAlivePost}
}

func (c *httpClient) exchange() (Source, error) {
	if c.load.cfg.Looks && c.conn != nil && c.conn.ended() {
		c.close()
		c.load.reconnected(c.kind)
	}
	if err := c.open(); err != nil {
		return Source{}, err
	}
	c.load.travel()
	conn := c.conn
	response, err := c.roundTrip()
	if err != nil {
		err = conn.broke(err)
		c.close()
		return Source{}, err
	}
	err = conn.broke(c.check(response))
	if !c.keep {
		c.close()
	} else if response.Close {
		c.close()
		c.load.reconnected(c.kind)
	}
	return sourceOf(response), err
}

func (c *httpClient) roundTrip() (*http.Response, error) {
	c.next()
	if err := c.conn.send(c.request, c.load.cfg.Timeout); err != nil {
		return nil, err
	}
	response, err := readResponse(c.conn)
	if err != nil {
		return nil, err
	}
	c.body.Reset()
	if _, err := c.body.ReadFrom(response.Body); err != nil {
		return nil, fmt.Errorf("the response's body ended after %d bytes: %w", c.body.Len(), err)
	}
	c.conn.used = true
	return response, nil
}

// next makes the request that is sent next; no two payloads of a client are alike.
func (c *httpClient) next() {
	c.sent++
	path := c.load.cfg.path(c.kind)
	if c.kind == KeepAlivePost {
		c.payload = fmt.Appendf(c.payload[:0], "%0*d", payloadSize, c.sent)
		c.request = fmt.Appendf(c.request[:0], "POST %s HTTP/1.1\r\nHost: load\r\nContent-Length: %d\r\n\r\n%s", path, len(c.payload), c.payload)
	} else if c.request == nil {
		c.request = get(path, c.keep)
	}
}

const payloadSize = 512

func get(path string, keep bool) []byte {
	request := fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: load\r\n", path)
	if !keep {
		request = append(request, "Connection: close\r\n"...)
	}
	return append(request, "\r\n"...)
}

// readResponse reads the head of the final response.
func readResponse(c *conn) (*http.Response, error) {
	for {
		response, err := http.ReadResponse(c.in, nil)
		if err != nil {
			return nil, badResponse(c, err)
		}
		if response.StatusCode >= 200 {
			return response, nil
		}
	}
}

// badResponse tells a head that ended early from one that is no HTTP.
func badResponse(c *conn, err error) error {
	if classify(err) != Other {
		return fmt.Errorf("the response was cut in its header: %w", err)
	}
	if _, end := c.in.Peek(1); end == io.EOF {
		return fail(Short, "the response ended in its head: %w", err)
	}
	return failed{Wrong, err}
}

func sourceOf(response *http.Response) Source {
	return Source{
		Generation: number(response.Header.Get("X-Generation")),
		Pid:        number(response.Header.Get("X-Pid")),
	}
}

func number(text string) int {
	n, _ := strconv.Atoi(text)
	return n
}

// check compares a whole response with what was asked for.
func (c *httpClient) check(response *http.Response) error {
	body := c.body.Bytes()
	switch {
	case response.StatusCode/100 != 2:
		return fail(BadStatus, "%s", response.Status)
	case c.load.cfg.Answer != "":
		return checkAnswer(c.load.cfg.Answer, body)
	case c.kind == KeepAlivePost && !bytes.Equal(body, c.payload):
		return fail(Wrong, "the body that came back (%d bytes) is not the one sent (%d bytes)", len(body), len(c.payload))
	}
	return checkSum(response.Header.Get(ChecksumHeader), body)
}

func checkAnswer(want string, body []byte) error {
	if string(body) != want {
		return fail(Wrong, "the body of %d bytes is not %q", len(body), want)
	}
	return nil
}

// ChecksumHeader is the response header in which a server may send the Checksum of the body that follows.
const ChecksumHeader = "X-Checksum"

// Checksum returns what ChecksumHeader has to be for a body.
func Checksum(body []byte) string { return fmt.Sprintf("%08x", crc32.ChecksumIEEE(body)) }

func checkSum(want string, body []byte) error {
	if want == "" {
		return nil
	}
	if got := Checksum(body); got != want {
		return fail(Wrong, "the body of %d bytes has checksum %s, announced was %s", len(body), got, want)
	}
	return nil
}
