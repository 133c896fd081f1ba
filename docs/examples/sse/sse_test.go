//go:build linux

package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gracerun/grace/docs/examples/internal/events"
	"github.com/gracerun/grace/docs/examples/internal/supervised"
	"github.com/gracerun/grace/internal/freeport"
	"github.com/gracerun/grace/test/harness"
)

const patience = harness.Patience

func TestMain(m *testing.M) { os.Exit(supervised.Run(m.Run, ".")) }

const (
	upgrades  = 20
	followers = 8
	posters   = 3
)

func TestEachLineComesOnceOverUpgrades(t *testing.T) {
	addr := freeport.Address(t)
	path := filepath.Join(t.TempDir(), "board.txt")
	g := supervised.Grace(t, "--listen", addr, "--", harness.Program("sse"), "-addr", addr, "-board", path)
	following := events.Follow(followers, addr, "/", "")
	following.AwaitPlaces(t)
	var posting sync.WaitGroup
	stop := make(chan struct{})
	for n := range posters {
		posting.Go(func() {
			if err := post(addr, n, stop); err != nil {
				t.Error(err)
			}
		})
	}
	for range upgrades {
		g.UpgradeNext()
		g.AwaitDrained()
	}
	close(stop)
	posting.Wait()
	if err := postOne(addr, events.Last); err != nil {
		t.Fatal(err)
	}
	following.Wait()
	g.Stop()
	following.Check(t, readLines(t, path))
}

func readLines(t *testing.T, path string) []string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	if len(lines) < upgrades {
		t.Errorf("only %d lines were posted", len(lines))
	}
	return lines
}

// post sends one line after the other on a connection until the server asks it to leave, and repeats none.
func post(addr string, poster int, stop <-chan struct{}) error {
	for n := 0; ; {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			return err
		}
		for last := false; !last; n++ {
			select {
			case <-stop:
				return conn.Close()
			case <-time.After(3 * time.Millisecond): // a think time
			}
			if last, err = send(conn, fmt.Sprintf("%d of poster %d", n, poster)); err != nil {
				return err
			}
		}
		conn.Close()
	}
}

func postOne(addr, line string) error {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = send(conn, line)
	return err
}

func send(conn net.Conn, line string) (last bool, err error) {
	conn.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: board\r\nContent-Length: %d\r\n\r\n%s", len(line), line)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return false, fmt.Errorf("cannot post %q: %w", line, err)
	}
	if resp.StatusCode != http.StatusOK {
		return false, fmt.Errorf("cannot post %q: %s", line, resp.Status)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.Close, err
}
