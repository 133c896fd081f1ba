package farewell_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/gracerun/grace/test/harness"
)

const (
	get    = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
	answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
)

// conversation is one that begins before an upgrade and ends after the stop signal of the old generation.
type conversation struct {
	server string
	begin  string                 // is sent first
	turn   func(c *talking) error // again and again; nil: nothing is done
	end    func(c *talking) error // after the stop signal; nil: the app ends it
}

// talking is a conversation that goes on. All that comes is noted.
type talking struct {
	*net.TCPConn
	mu    sync.Mutex // there are two readers at the end of gRPC
	got   bytes.Buffer
	lines *bufio.Reader
	turns int
	tls   *tls.Conn
	http  *http.Client
}

func (c *talking) Read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, err := c.TCPConn.Read(p)
	c.got.Write(p[:n])
	return n, err
}

// echo sends something and wants it back.
func echo(text string) func(c *talking) error {
	return func(c *talking) error {
		if _, err := io.WriteString(c, text); err != nil {
			return err
		}
		back := make([]byte, len(text))
		if _, err := io.ReadFull(c.lines, back); err != nil || string(back) != text {
			return fmt.Errorf("%q came back: %w", back, err)
		}
		return nil
	}
}

func readLine(c *talking) error {
	_, err := c.lines.ReadString('\n')
	return err
}

func askOverTLS(c *talking) error {
	if c.tls == nil {
		c.tls = tls.Client(c, &tls.Config{InsecureSkipVerify: true})
	}
	if _, err := io.WriteString(c.tls, get); err != nil {
		return err
	}
	response, err := http.ReadResponse(bufio.NewReader(c.tls), nil)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, response.Body)
	return err
}

// call is a unary call of gRPC.
func call(c *talking) error {
	if c.http == nil {
		protocols := new(http.Protocols)
		protocols.SetUnencryptedHTTP2(true)
		dial := func(context.Context, string, string) (net.Conn, error) { return c, nil }
		c.http = &http.Client{Transport: &http.Transport{Protocols: protocols, DialContext: dial}}
	}
	const message = "\x00\x00\x00\x00\x05hello"
	response, err := c.http.Post("http://x/service/Method", "application/grpc", strings.NewReader(message))
	if err != nil {
		return err
	}
	body, err := io.ReadAll(response.Body)
	if err != nil || string(body) != message || response.Trailer.Get("Grpc-Status") != "0" {
		return fmt.Errorf("%q, %v: %w", body, response.Trailer, err)
	}
	return nil
}

var conversations = map[string]conversation{
	"server-sent events": {server: "web", begin: "GET /events HTTP/1.1\r\nHost: x\r\n\r\n", turn: readLine},
	"long poll":          {server: "web", begin: "GET /poll HTTP/1.1\r\nHost: x\r\n\r\n"},
	"upload": {server: "web", begin: "POST /upload HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
		turn: func(c *talking) error { _, err := io.WriteString(c, "5\r\nGET /\r\n"); return err },
		end: func(c *talking) error {
			if _, err := io.WriteString(c, "0\r\n\r\n"); err != nil {
				return err
			}
			_, err := http.ReadResponse(c.lines, nil)
			return err
		}},
	"WebSocket": {server: "web", begin: "GET /socket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
		turn: func(c *talking) error {
			if c.turns == 0 {
				if _, err := http.ReadResponse(c.lines, nil); err != nil {
					return err
				}
			}
			return echo(answer)(c)
		}, end: echo(get)},
	"echo":               {server: "echo", turn: echo("PING\r\n"), end: echo(answer)},
	"echo of a request":  {server: "echo", turn: echo(get), end: echo(get)},
	"echo of a response": {server: "echo", turn: echo(answer), end: echo(answer)},
	"TLS":                {server: "tls", turn: askOverTLS, end: askOverTLS},
	"gRPC":               {server: "grpc", turn: call, end: call},
}

// goOn talks until the old generation was told to stop or has ended the conversation.
func (c *talking) goOn(with conversation, told <-chan struct{}, begun func()) error {
	if _, err := io.WriteString(c, with.begin); err != nil {
		return err
	}
	for over := false; with.turn != nil && !over; c.turns++ {
		select {
		case <-told:
			over = true
		default:
		}
		err := with.turn(c)
		if errors.Is(err, io.EOF) && with.end == nil {
			<-told // the app has ended it, which the test may learn later
			break
		}
		if err != nil {
			return fmt.Errorf("turn %d: %w", c.turns, err)
		}
		if c.turns == 2 {
			begun()
		}
	}
	if with.turn == nil {
		begun()
	}
	if with.end != nil {
		if err := with.end(c); err != nil {
			return err
		}
		if err := c.CloseWrite(); err != nil {
			return err
		}
	}
	_, err := io.Copy(io.Discard, struct{ io.Reader }{c})
	if errors.Is(err, net.ErrClosed) { // by HTTP/2's reader, at the end
		return nil
	}
	return err
}

// What a client gets of a conversation that goes on over an upgrade is what the app has sent, to the byte.
func TestConversationsGoOn(t *testing.T) {
	needFarewell(t)
	sent := t.TempDir()
	s := harness.StartWith(t, func(c *exec.Cmd) { c.Env = append(os.Environ(), "SENT="+sent) },
		"--farewell", "auto", "--listen", "web=127.0.0.1:0", "--listen", "echo=127.0.0.1:0", "--listen", "tls=127.0.0.1:0", "--listen", "grpc=127.0.0.1:0",
		"--", harness.ConversationsBinary(), "web=fd:3", "echo=fd:4", "tls=fd:5", "grpc=fd:6")
	s.AwaitReady(1)
	told := make(chan struct{})
	var begun, talks sync.WaitGroup
	for name, with := range conversations {
		begun.Add(1)
		began := sync.OnceFunc(begun.Done)
		conn, err := net.Dial("tcp", s.Address(with.server))
		if err != nil {
			t.Fatal(err)
		}
		c := &talking{TCPConn: conn.(*net.TCPConn)}
		c.lines = bufio.NewReader(c)
		talks.Go(func() {
			defer conn.Close()
			defer began()
			if err := c.goOn(with, told, began); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
		t.Cleanup(func() { compare(t, name, with, c, sent) })
	}
	busy := dial(t, s.Address("web"))
	busy.ask(t)
	begun.Wait()
	s.Signal(syscall.SIGHUP)
	busy.askUntilTold(t)
	s.AwaitReady(2)
	s.AwaitGeneration("generation draining", 1)
	s.Await("the app is told to stop", func(e harness.Entry) bool { return strings.Contains(e.Text, "told to stop, and finishes") })
	close(told)
	talks.Wait()
	s.AwaitGeneration("instance ended", 1)
	s.Stop()
}

func compare(t *testing.T, name string, with conversation, c *talking, sent string) {
	_, port, _ := net.SplitHostPort(c.LocalAddr().String())
	want, err := os.ReadFile(filepath.Join(sent, port))
	if err != nil {
		t.Errorf("%s: %v", name, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if got := c.got.Bytes(); !bytes.Equal(got, want) {
		t.Errorf("%s: after %d turns the client has got %d bytes, and the app has sent %d:\n%.300q\n%.300q", name, c.turns, len(got), len(want), got, want)
	}
}
