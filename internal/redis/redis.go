// Package redis puts load on a redis server, for tests. Its clients never retry.
package redis

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"
)

// timeout bounds one command.
const timeout = time.Minute

// Conn is a connection of one client, which belongs to one goroutine.
type Conn struct {
	net.Conn
	in *bufio.Reader
}

// Dial connects. The caller closes the connection.
func Dial(addr string) (*Conn, error) {
	conn, err := net.DialTimeout("tcp", addr, timeout)
	if err != nil {
		return nil, err
	}
	return &Conn{conn, bufio.NewReader(conn)}, nil
}

// Do sends a command and returns the string or the number that it is answered by.
func (c *Conn) Do(words ...string) (string, error) {
	if err := c.SetDeadline(time.Now().Add(timeout)); err != nil {
		return "", err
	}
	var command strings.Builder
	fmt.Fprintf(&command, "*%d\r\n", len(words))
	for _, word := range words {
		fmt.Fprintf(&command, "$%d\r\n%s\r\n", len(word), word)
	}
	if _, err := io.WriteString(c, command.String()); err != nil {
		return "", err
	}
	return c.reply()
}

func (c *Conn) reply() (string, error) {
	line, err := c.in.ReadString('\n')
	if err != nil {
		return "", err
	}
	kind, rest := line[0], strings.TrimSpace(line[1:])
	switch kind {
	case '+', ':':
		return rest, nil
	case '$':
		return c.bulk(rest)
	}
	return "", fmt.Errorf("redis says %q", line)
}

func (c *Conn) bulk(length string) (string, error) {
	n, err := strconv.Atoi(length)
	if err != nil || n < 0 {
		return "", fmt.Errorf("no string of length %q is there", length)
	}
	text := make([]byte, n+len("\r\n"))
	if _, err := io.ReadFull(c.in, text); err != nil {
		return "", err
	}
	return string(text[:n]), nil
}

// SetAndGet stores a value and reads it back.
func (c *Conn) SetAndGet(key, value string) error {
	if _, err := c.Do("SET", key, value); err != nil {
		return fmt.Errorf("cannot set: %w", err)
	}
	got, err := c.Do("GET", key)
	if err != nil {
		return fmt.Errorf("cannot get: %w", err)
	}
	if got != value {
		return fmt.Errorf("%s is %q, not %q", key, got, value)
	}
	return nil
}

// PID is that of the server.
func (c *Conn) PID() (int, error) {
	info, err := c.Do("INFO", "server")
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(info, "process_id:")
	number, _, _ := strings.Cut(rest, "\r\n")
	return strconv.Atoi(number)
}

// Load is a running set of clients. Each opens a connection, sets and gets on it,
// closes it, and begins again.
type Load struct {
	addr    string
	stop    chan struct{}
	clients sync.WaitGroup

	mu       sync.Mutex
	commands int
	failures []error
}

// Start begins. Each number in rounds is a client that sets and gets so often on
// one connection. The caller ends the load by Stop.
func Start(addr string, rounds ...int) *Load {
	l := &Load{addr: addr, stop: make(chan struct{})}
	for client, n := range rounds {
		l.clients.Go(func() { l.run(fmt.Sprintf("client-%d", client), n) })
	}
	return l
}

// Stop lets every client finish its connection, and returns how often they set
// and got, and what failed.
func (l *Load) Stop() (commands int, failed error) {
	close(l.stop)
	l.clients.Wait()
	return l.commands, errors.Join(l.failures...)
}

func (l *Load) run(key string, rounds int) {
	for l.pause() {
		done, err := l.session(key, rounds)
		l.mu.Lock()
		l.commands += done
		if err != nil {
			l.failures = append(l.failures, fmt.Errorf("%s %s after %d rounds: %w", time.Now().Format("15:04:05.000"), key, done, err))
		}
		l.mu.Unlock()
	}
}

func (l *Load) session(key string, rounds int) (done int, err error) {
	conn, err := Dial(l.addr)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	for done < rounds {
		if err := conn.SetAndGet(key, strconv.Itoa(done)); err != nil {
			return done, err
		}
		done++
		l.pause()
	}
	return done, nil
}

func (l *Load) pause() (goOn bool) {
	timer := time.NewTimer(rand.N(4 * time.Millisecond))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-l.stop:
		return false
	}
}
