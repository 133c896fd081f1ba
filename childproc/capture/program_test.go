package capture_test

import (
	"bufio"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/gracerun/grace/childproc"
	"github.com/gracerun/grace/childproc/capture"
	"github.com/gracerun/grace/internal/requirement"
	"golang.org/x/sys/unix"
)

// daemon registers its socket before it has an address, and goes to the
// background before it listens. It serves one client.
const daemon = `
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

static void check(int result) { if (result < 0) exit(1); }

int main(void) {
	int s = socket(AF_INET6, SOCK_STREAM, 0), e = epoll_create1(0);
	struct epoll_event event = { .events = EPOLLIN };
	struct sockaddr_in6 address = { .sin6_family = AF_INET6, .sin6_addr = in6addr_loopback };
	check(s);
	check(epoll_ctl(e, EPOLL_CTL_ADD, s, &event));
	check(bind(s, (struct sockaddr *)&address, sizeof address));
	check(daemon(1, 1));
	check(listen(s, 5));
	alarm(60);
	check(epoll_wait(e, &event, 1, -1));
	int c = accept(s, NULL, NULL);
	check(c);
	check(write(c, "hello\n", 6));
	return 0;
}
`

func compile(t *testing.T, text string) string {
	t.Helper()
	cc, err := exec.LookPath("cc")
	requirement.Check(t, "cc", err)
	path := filepath.Join(t.TempDir(), "program")
	cmd := exec.Command(cc, "-o", path, "-xc", "-")
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return path
}

func program(path string, args ...string) childproc.Spec {
	s := spec("")
	s.Path, s.Program, s.Args = path, 0, append([]string{path}, args...)
	return s
}

// The app never listens: grace does, on the same socket.
func TestUnmodifiedProgramsServe(t *testing.T) {
	for name, describe := range map[string]func(t *testing.T) childproc.Spec{
		"Go":                func(*testing.T) childproc.Spec { return spec("serve", "127.0.0.1:0") },
		"Go, every address": func(*testing.T) childproc.Spec { return spec("serve", ":0") },
		"Python": func(t *testing.T) childproc.Spec {
			path, err := exec.LookPath("python3")
			requirement.Check(t, "python3", err)
			return program(path, "-m", "http.server", "--bind", "127.0.0.1", "0")
		},
		"C, in the background": func(t *testing.T) childproc.Spec { return program(compile(t, daemon)) },
	} {
		t.Run(name, func(t *testing.T) {
			a := start(t, describe(t))
			socket := a.capture(t)
			conn, err := net.Dial("tcp", addressOf(t, socket))
			must(t, err)
			defer conn.Close()
			_, err = io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n")
			must(t, err)
			answer := make([]byte, 4)
			if _, err := io.ReadFull(conn, answer); err != nil || string(answer) != "HTTP" && string(answer) != "hell" {
				t.Errorf("%q, %v", answer, err)
			}
		})
	}
}

// capture answers the app's calls until it listens for TCP, and gives the socket.
func (a *app) capture(t *testing.T) int {
	t.Helper()
	for {
		c, err := a.listener.Next()
		must(t, err)
		protocol, err := c.Protocol()
		must(t, err)
		if !strings.HasPrefix(protocol, "TCP") {
			must(t, c.Continue())
			continue
		}
		fd := duplicate(t, c)
		if c.Syscall() == capture.Listen {
			must(t, unix.Listen(fd, c.Backlog()))
			must(t, c.Return(0))
			return fd
		}
		must(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
		must(t, c.Continue())
	}
}

func init() {
	roles["grace"] = func(args []string) {
		reaper, err := childproc.NewReaper()
		if err != nil {
			panic(err)
		}
		s := spec(args[0], args[1:]...)
		s.Stdin = 0
		p, err := reaper.Start(s)
		if err != nil {
			panic(err)
		}
		l, err := p.Captured()
		if err != nil {
			panic(err)
		}
		for {
			if _, err := l.Next(); err != nil {
				return
			}
		}
	}
}

// The filter outlives its listener. It is a documented limit: nothing can remove a filter.
func TestAppOfAKilledGraceCannotBindAnyMore(t *testing.T) {
	theirIn, in := pipe(t)
	out, theirOut := pipe(t)
	cmd := exec.Command("/proc/self/exe", "late", "127.0.0.1:0")
	cmd.Env = append(os.Environ(), roleVariable+"=grace")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = theirIn, theirOut, os.Stderr
	must(t, cmd.Start())
	theirIn.Close()
	theirOut.Close()
	a := &app{out: bufio.NewReader(out)}
	if got := a.line(t); got != "up" {
		t.Fatalf("the app said %q", got)
	}
	must(t, cmd.Process.Signal(syscall.SIGKILL))
	cmd.Wait()
	_, err := in.Write([]byte{0})
	must(t, err)
	a.step(t, "socket")
	if _, _, errno := a.step(t, "bind"); errno != unix.ENOSYS {
		t.Errorf("bind: %v", errno)
	}
	if _, _, errno := a.step(t, "listen"); errno != unix.ENOSYS {
		t.Errorf("listen: %v", errno)
	}
}
