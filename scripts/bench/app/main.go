// App is the server that is measured: it answers at once, and says who answered.
package main

import (
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/gracerun/grace/drain"
	"github.com/gracerun/grace/handoff"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:0", "what to listen on when no socket was inherited")
	fd := flag.Int("fd", 0, "serve the listening socket with this number")
	flips := flag.Bool("tableflip", false, "let tableflip replace the process on SIGHUP")
	delay := flag.Duration("delay", 0, "what the start takes beyond that of the program itself")
	silent := flag.Bool("silent", false, "do not send READY=1, so that readiness has to be seen")
	linger := flag.Duration("linger", 2*time.Second, "how long idle connections stay open during a drain")
	measured := flag.Bool("measure", false, "print what system calls cost here, and end")
	many := flag.Int("many", 0, "bind so many addresses of its own, and say how long that took")
	flag.Parse()
	slog.SetDefault(slog.New(slog.DiscardHandler)) // drain says when it begins and ends
	if *silent {
		os.Unsetenv("NOTIFY_SOCKET")
	}
	time.Sleep(*delay)
	switch {
	case *many > 0:
		end(holdMany(*many))
	case *measured:
		end(measure())
	case *flips:
		end(serveFlipped(*addr, server(), drain.Linger(*linger)))
	default:
		end(serve(*fd, *addr, drain.Linger(*linger)))
	}
}

func end(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "app:", err)
		os.Exit(1)
	}
}

func serve(fd int, addr string, options ...drain.Option) error {
	ln, err := listen(fd, addr)
	if err != nil {
		return err
	}
	return drain.Serve(server(), ln, options...)
}

func listen(fd int, addr string) (net.Listener, error) {
	if fd == 0 {
		return handoff.ListenNamed("web", "tcp", addr)
	}
	inherited := os.NewFile(uintptr(fd), "listener")
	defer inherited.Close()
	return net.FileListener(inherited)
}

func server() *http.Server {
	pid := strconv.Itoa(os.Getpid())
	return &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Pid", pid)
		io.WriteString(w, "hello\n")
		if r.URL.Path == "/slow" {
			_ = http.NewResponseController(w).Flush() // the client may have left
			time.Sleep(slow)
		}
	})}
}

// slow is how long /slow takes from the first byte of its answer to the last one.
const slow = 2 * time.Second
