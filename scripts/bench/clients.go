package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"sync/atomic"
	"time"
)

// client is a process that keeps many connections open and uses each from time to time.
type client struct {
	cmd     *exec.Cmd
	orders  io.WriteCloser
	answers *bufio.Reader
}

type crowd []*client

// invite starts the clients, and returns when all their connections are open and have been used once.
func (s *supervised) invite(connections int, every time.Duration) crowd {
	var all crowd
	if err := attempt(func() {
		for range clients {
			all = append(all, newClient(s.address, connections/clients, every))
		}
		all.requests()
	}); err != nil {
		all.leave()
		check(err)
	}
	return all
}

func newClient(address string, connections int, every time.Duration) *client {
	c := &client{cmd: exec.Command(must(os.Executable()), "clients", address, strconv.Itoa(connections), every.String())}
	c.cmd.Stderr = os.Stderr
	c.orders, c.answers = must(c.cmd.StdinPipe()), bufio.NewReader(must(c.cmd.StdoutPipe()))
	check(c.cmd.Start())
	return c
}

// requests asks how many there were until now.
func (all crowd) requests() (sum int) {
	for _, c := range all {
		must(fmt.Fprintln(c.orders))
	}
	for _, c := range all {
		var n int
		if _, err := fmt.Fscanln(c.answers, &n); err != nil {
			check(fmt.Errorf("a client does not answer: %w", err))
		}
		sum += n
	}
	return sum
}

func (all crowd) leave() {
	var err error
	for _, c := range all {
		err = errors.Join(err, c.orders.Close(), c.cmd.Wait())
	}
	check(err)
}

// hold is the client's process: for each line that it gets it says how many requests were answered, and it ends with
// its input or with the first request that fails. Without a pause it asks once on each connection.
func hold(address, count, every string) error {
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	pause, err := time.ParseDuration(every)
	if err != nil {
		return err
	}
	var answered atomic.Int64
	failed := make(chan error)
	for range n {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			return err
		}
		u := &user{address, conn, bufio.NewReaderSize(conn, 512)}
		if err := u.ask(); err != nil {
			return err
		}
		answered.Add(1)
		go func() { failed <- u.use(pause, &answered) }()
	}
	return report(&answered, failed)
}

func report(answered *atomic.Int64, failed <-chan error) error {
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
			asked <- struct{}{}
		}
	}()
	for {
		select {
		case _, more := <-asked:
			if !more {
				return nil
			}
			fmt.Println(answered.Load())
		case err := <-failed:
			if err != nil {
				return err
			}
		}
	}
}

// user has one connection at a time.
type user struct {
	address string
	conn    net.Conn
	in      *bufio.Reader
}

// use asks again and again, or, without a pause between, only waits for the end of the connection.
func (u *user) use(every time.Duration, answered *atomic.Int64) error {
	if every == 0 {
		_, err := io.Copy(io.Discard, u.in)
		u.conn.Close()
		return err
	}
	for wait := rand.N(every); ; wait = every {
		time.Sleep(wait)
		if err := u.ask(); err != nil {
			return err
		}
		answered.Add(1)
	}
}

// ask takes a new connection for the next time if it is told to.
func (u *user) ask() error {
	if _, err := io.WriteString(u.conn, "GET / HTTP/1.1\r\nHost: bench\r\n\r\n"); err != nil {
		return err
	}
	response, err := http.ReadResponse(u.in, nil)
	if err != nil {
		return err
	}
	if _, err = io.Copy(io.Discard, response.Body); err != nil || !response.Close {
		return err
	}
	u.conn.Close()
	if u.conn, err = net.Dial("tcp", u.address); err != nil {
		return err
	}
	u.in.Reset(u.conn)
	return nil
}
