package drain

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// testTimeout bounds every wait of the tests that only a defect makes long.
const testTimeout = 2 * time.Minute

// client is one HTTP/1.1 connection without what http.Transport does behind one's back: it never retries.
type client struct {
	conn net.Conn
	r    *bufio.Reader
}

func dial(addr net.Addr) (*client, error) {
	conn, err := net.Dial(addr.Network(), addr.String())
	if err != nil {
		return nil, err
	}
	conn.SetDeadline(time.Now().Add(testTimeout))
	return &client{conn, bufio.NewReader(conn)}, nil
}

func connect(t *testing.T, addr net.Addr) *client {
	t.Helper()
	c, err := dial(addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.conn.Close() })
	return c
}

// post sends one request and reads the whole response.
func (c *client) post(path, body string) (answer string, last bool, err error) {
	if err := c.send(path, body); err != nil {
		return "", false, err
	}
	return c.receive()
}

func (c *client) send(path, body string) error {
	_, err := fmt.Fprintf(c.conn, "POST %s HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body)
	return err
}

func (c *client) receive() (answer string, last bool, err error) {
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return "", false, err
	}
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %s", resp.Status)
	}
	return string(b), resp.Close, err
}

// mustPost checks that body comes back, and whether the server asks to leave.
func (c *client) mustPost(t *testing.T, body string, last bool) {
	t.Helper()
	if err := c.send("/", body); err != nil {
		t.Fatal(err)
	}
	c.mustReceive(t, body, last)
}

func (c *client) mustReceive(t *testing.T, body string, last bool) {
	t.Helper()
	answer, gotLast, err := c.receive()
	if err != nil || answer != body || gotLast != last {
		t.Fatalf("%q came back as %q, last %v, %v; want last %v", body, answer, gotLast, err, last)
	}
}

// mustEnd checks that the server closes the connection in an orderly way.
func (c *client) mustEnd(t *testing.T) {
	t.Helper()
	if b, err := io.ReadAll(c.r); len(b) > 0 || err != nil {
		t.Errorf("the connection ends with %q, %v", b, err)
	}
}

func echo(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) }
