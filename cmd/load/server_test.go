package load

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// listen returns a listener that ends with the test, and its address.
func listen(t *testing.T, network string) (net.Listener, string) {
	t.Helper()
	addr := "127.0.0.1:0"
	if network == "unix" {
		addr = filepath.Join(t.TempDir(), "s")
	}
	ln, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln, ln.Addr().String()
}

// serve hands every connection to a goroutine of its own. The handler closes it.
func serve(t *testing.T, network string, handle func(net.Conn)) (addr string) {
	t.Helper()
	ln, addr := listen(t, network)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go handle(c)
		}
	}()
	return addr
}

// serveHTTP serves a well-behaved application with net/http.
func serveHTTP(t *testing.T, network string, handler http.Handler) (addr string) {
	t.Helper()
	ln, addr := listen(t, network)
	server := &http.Server{Handler: handler}
	go server.Serve(ln)
	t.Cleanup(func() { server.Close() })
	return addr
}

// goodApp answers all HTTP kinds as they have to be answered.
func goodApp(generation int) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello\n") })
	mux.HandleFunc("POST /echo", echo)
	mux.HandleFunc("GET /slow", slowly)
	mux.HandleFunc("GET /events", func(w http.ResponseWriter, r *http.Request) { events(w, r, 5) })
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Generation", strconv.Itoa(generation))
		w.Header().Set("X-Pid", strconv.Itoa(os.Getpid()))
		mux.ServeHTTP(w, r)
	})
}

// echo reads the whole body first: net/http's server drops what is left of it when the response begins.
func echo(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	w.Write(body)
}

func slowly(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Length", "20")
	w.Header().Set(ChecksumHeader, Checksum([]byte("0123456789abcdefghij")))
	io.WriteString(w, "0123456789")
	http.NewResponseController(w).Flush()
	io.WriteString(w, "abcdefghij")
}

// events sends some events from the one after Last-Event-ID on, and ends the stream in an orderly way.
func events(w http.ResponseWriter, r *http.Request, count int) {
	last, _ := strconv.Atoi(r.Header.Get("Last-Event-ID"))
	for id := last + 1; id <= last+count; id++ {
		fmt.Fprintf(w, ": comment\nid: %d\ndata: tick\n\n", id)
		http.NewResponseController(w).Flush()
	}
}

// readRequest reads one request with its body; false when the client has gone.
func readRequest(in *bufio.Reader) (*http.Request, bool) {
	r, err := http.ReadRequest(in)
	if err != nil {
		return nil, false
	}
	io.Copy(io.Discard, r.Body)
	return r, true
}

const (
	okResponse      = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	closingResponse = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
)

// answers makes a handler that reads one request for each of the texts, answers with it, and then ends the connection.
func answers(end func(net.Conn), texts ...string) func(net.Conn) {
	return func(c net.Conn) {
		in := bufio.NewReader(c)
		for _, text := range texts {
			if _, ok := readRequest(in); !ok {
				break
			}
			io.WriteString(c, text)
		}
		end(c)
	}
}

// ends of a connection
func closes(c net.Conn) { c.Close() }

func resets(c net.Conn) {
	c.(*net.TCPConn).SetLinger(0)
	c.Close()
}

func hangs(c net.Conn) {
	io.Copy(io.Discard, c)
	c.Close()
}

// closesUnread waits until the next request is there, and closes without having read it.
func closesUnread(c net.Conn) {
	c.Read(make([]byte, 1))
	c.Close()
}

// startLoad starts a load that is stopped at the end of the test at the latest.
func startLoad(t *testing.T, cfg Config) *Load {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l, err := Start(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		l.Stop()
	})
	return l
}

// patience is for what comes at once, unless the machine is busy.
const patience = 2 * time.Minute

// await polls the tally until it satisfies the condition.
func await(t *testing.T, l *Load, what string, ok func(Tally) bool) Tally {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		tally := l.Snapshot()
		if ok(tally) {
			return tally
		}
		if time.Now().After(deadline) {
			t.Fatalf("no %s in time: %v", what, tally)
		}
		time.Sleep(time.Millisecond)
	}
}

func echoPackets(c net.PacketConn) {
	buf := make([]byte, 2048)
	for {
		n, from, err := c.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		c.WriteTo(buf[:n], from)
	}
}
