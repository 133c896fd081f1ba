package harness

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Request is one in flight, until its body is sent or the connection is closed.
type Request struct {
	t *testing.T
	net.Conn
	answers *bufio.Reader
}

// BeginRequest returns when the app reads the body. The address may be a path.
func BeginRequest(t *testing.T, addr string) Request {
	t.Helper()
	r := begin(t, addr, "Expect: 100-continue\r\n")
	r.answer(http.StatusContinue, "")
	return r
}

// BeginUnanswered begins a request to which the app has said nothing before Finish, so that the kernel's record tells that it is
// open. The app has taken it when one that came later is answered.
func BeginUnanswered(t *testing.T, addr string) Request {
	t.Helper()
	return begin(t, addr, "")
}

func begin(t *testing.T, addr, header string) Request {
	t.Helper()
	network := "tcp"
	if filepath.IsAbs(addr) {
		network = "unix"
	}
	conn, err := net.Dial(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(2 * Patience)); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n%s\r\n", header)
	return Request{t, conn, bufio.NewReader(conn)}
}

func (r Request) answer(status int, body string) {
	r.t.Helper()
	response, err := http.ReadResponse(r.answers, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	text, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != status || string(text) != body {
		r.t.Fatalf("the answer is %s, %q, %v", response.Status, text, err)
	}
}

// Finish wants the answer, and ends the connection.
func (r Request) Finish() {
	r.t.Helper()
	defer r.Close()
	io.WriteString(r, "body")
	r.answer(http.StatusOK, "body")
}

// AwaitListener returns when somebody listens at an address.
func AwaitListener(t *testing.T, network, addr string) {
	t.Helper()
	Until(t, "somebody listens at "+addr, func() bool {
		conn, err := net.Dial(network, addr)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
}

// AwaitTurnedAway returns when a connection to an address is not made within a moment, or is refused.
func AwaitTurnedAway(t *testing.T, network, addr string) {
	t.Helper()
	Until(t, "new clients are turned away from "+addr, func() bool {
		conn, err := net.DialTimeout(network, addr, 50*time.Millisecond)
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
}

// Get sends one request to an app and gives the body of its answer.
func Get(t *testing.T, addr, path string) string {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(Patience)); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "GET %s HTTP/1.0\r\n\r\n", path)
	text, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	_, body, _ := strings.Cut(string(text), "\r\n\r\n")
	return body
}
