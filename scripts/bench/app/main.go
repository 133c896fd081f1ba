// App is the server that is measured: it answers at once, and says who answered.
package main

import (
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/gracerun/grace/drain"
	"github.com/gracerun/grace/handoff"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:0", "what to listen on when no socket was inherited")
	delay := flag.Duration("delay", 0, "what the start takes beyond that of the program itself")
	silent := flag.Bool("silent", false, "do not send READY=1, so that readiness has to be seen")
	linger := flag.Duration("linger", 2*time.Second, "how long idle connections stay open during a drain")
	measured := flag.Bool("measure", false, "print what system calls cost here, and end")
	many := flag.Int("many", 0, "bind so many addresses of its own, and say how long that took")
	flag.Parse()
	if *many > 0 {
		if err := bindMany(*many); err != nil {
			fmt.Fprintln(os.Stderr, "app:", err)
			os.Exit(1)
		}
		time.Sleep(time.Hour) // until it is killed
	}
	if *measured {
		if err := measure(); err != nil {
			fmt.Fprintln(os.Stderr, "app:", err)
			os.Exit(1)
		}
		return
	}
	if *silent {
		os.Unsetenv("NOTIFY_SOCKET")
	}
	time.Sleep(*delay)
	if err := serve(*addr, *linger); err != nil {
		fmt.Fprintln(os.Stderr, "app:", err)
		os.Exit(1)
	}
}

func serve(addr string, linger time.Duration) error {
	ln, err := handoff.ListenNamed("web", "tcp", addr)
	if err != nil {
		return err
	}
	pid := strconv.Itoa(os.Getpid())
	return drain.Serve(&http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Pid", pid)
		io.WriteString(w, "hello\n")
	})}, ln, drain.Linger(linger))
}
