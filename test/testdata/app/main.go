// App is the server of the integration tests: it takes its socket in the way of
// one dialect and serves what package load asks for.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cloudflare/tableflip"
	"github.com/gracerun/grace/cmd/demo"
	"github.com/gracerun/grace/drain"
	"github.com/gracerun/grace/handoff"
)

var (
	take       = flag.String("take", "handoff", "where the socket comes from: handoff, fd:N, stdin, nginx, einhorn, php-fpm, server-starter, systemd, tableflip")
	addr       = flag.String("addr", "", "the address, for handoff, php-fpm and tableflip")
	network    = flag.String("network", "tcp", "its network")
	remove     = flag.Bool("remove", false, "remove what is at the address, a path, before it is bound, as most servers do")
	serve      = flag.String("serve", "http", "http, echo, packets")
	delay      = flag.Duration("delay", 0, "wait so long before the socket is touched")
	notify     = flag.Duration("notify", -1, "send READY=1 so long after the socket is served")
	health     = flag.Duration("healthy-after", 0, "answer /health with 503 for so long")
	fail       = flag.String("fail", "", "exit with 3 if this file exists")
	lock       = flag.String("lock", "", "lock this file for as long as the app runs, and exit with 4 if another process has locked it")
	ignoreTerm = flag.Bool("ignore-term", false, "never end on TERM")
	leave      = flag.Bool("leave-children", false, "fork a child that ignores TERM, and leave it behind")
	daemonize  = flag.Bool("daemonize", false, "serve from a child in a session of its own, announced by MAINPID")
	shutdown   = flag.Bool("shutdown-listener", false, "shut the listener down on TERM, as some C programs do")
	plain      = flag.Bool("plain", false, "know nothing of grace: Shutdown on TERM, as the documentation of net/http shows it")
	watchdog   = flag.Bool("watchdog", false, "send WATCHDOG=1 until GET /hang")
)

// notifySocket is kept from drain, which would say READY=1 by itself.
var notifySocket = os.Getenv("NOTIFY_SOCKET")

// terminated is asked for before the listener is touched: grace may take the app
// for ready right after that.
var terminated = make(chan os.Signal, 1)

func main() {
	flag.Parse()
	signal.Notify(terminated, syscall.SIGTERM)
	os.Unsetenv("NOTIFY_SOCKET")
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "app:", err)
		os.Exit(1)
	}
}

func run() error {
	if *fail != "" {
		if _, err := os.Stat(*fail); err == nil {
			os.Exit(3)
		}
	}
	if *daemonize {
		return launch()
	}
	lockFile()
	select {
	case <-time.After(*delay):
	case <-terminated:
		return nil
	}
	if *leave {
		if err := leaveChild(); err != nil {
			return err
		}
	}
	if *serve == "packets" {
		return servePackets()
	}
	if *remove {
		if err := os.Remove(*addr); err != nil && !os.IsNotExist(err) {
			return err
		}
	}
	ln, err := listen()
	if err != nil {
		return err
	}
	go announce()
	if *serve == "echo" {
		return serveEcho(ln)
	}
	return serveHTTP(ln)
}

// lockFile is what embedded databases do.
func lockFile() {
	if *lock == "" {
		return
	}
	fd, err := syscall.Open(*lock, syscall.O_CREAT|syscall.O_RDWR|syscall.O_CLOEXEC, 0o600)
	if err == nil {
		err = syscall.Flock(fd, syscall.LOCK_EX|syscall.LOCK_NB)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "app: cannot lock %s: %v\n", *lock, err)
		os.Exit(4)
	}
}

// launch starts the server in the background, tells of it, and ends.
func launch() error {
	var args []string
	for _, arg := range os.Args[1:] {
		if !strings.HasPrefix(arg, "-daemonize") {
			args = append(args, arg)
		}
	}
	c := exec.Command("/proc/self/exe", args...)
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	// LISTEN_PID names the launcher; a daemon that keeps it has to set it anew.
	c.Env = append(os.Environ(), "LISTEN_PID=", "NOTIFY_SOCKET="+notifySocket)
	for fd := 3; fd < 3+count("LISTEN_FDS"); fd++ {
		c.ExtraFiles = append(c.ExtraFiles, os.NewFile(uintptr(fd), "inherited"))
	}
	if err := c.Start(); err != nil {
		return err
	}
	if err := send("MAINPID=" + strconv.Itoa(c.Process.Pid)); err != nil {
		return err
	}
	return nil
}

func send(text string) error {
	conn, err := net.Dial("unixgram", notifySocket)
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = io.WriteString(conn, text)
	return err
}

func leaveChild() error {
	c := exec.Command("/bin/sh", "-c", `trap "" TERM; while :; do sleep 1; done`)
	return c.Start()
}

func announce() {
	if *notify >= 0 {
		time.Sleep(*notify)
		if err := send("READY=1"); err != nil {
			fmt.Fprintln(os.Stderr, "app:", err)
		}
	}
}

func count(variable string) int {
	n, _ := strconv.Atoi(os.Getenv(variable))
	return n
}

func listen() (net.Listener, error) {
	switch {
	case *take == "handoff" && *addr == "":
		return handoff.ListenNamed("web", *network, "127.0.0.1:0")
	case *take == "handoff":
		return handoff.Listen(*network, *addr)
	case *take == "tableflip":
		return tableflipListener()
	}
	fd, err := descriptor()
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "inherited")
	defer f.Close()
	return net.FileListener(f)
}

// descriptor reads the number as a client of the dialect does.
func descriptor() (int, error) {
	switch *take {
	case "stdin":
		return 0, nil
	case "systemd":
		if count("LISTEN_PID") != os.Getpid() || count("LISTEN_FDS") != 1 {
			return 0, fmt.Errorf("LISTEN_PID=%s LISTEN_FDS=%s in process %d", os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS"), os.Getpid())
		}
		return 3, nil
	case "server-starter":
		_, number, _ := strings.Cut(os.Getenv("SERVER_STARTER_PORT"), "=")
		return strconv.Atoi(number)
	case "nginx":
		number, rest, found := strings.Cut(os.Getenv("NGINX"), ";")
		if !found || rest != "" {
			return 0, fmt.Errorf("NGINX=%s", os.Getenv("NGINX"))
		}
		return strconv.Atoi(number)
	case "einhorn":
		if count("EINHORN_MASTER_PID") != os.Getppid() || count("EINHORN_FD_COUNT") != 1 {
			return 0, errors.New("no einhorn master")
		}
		return strconv.Atoi(os.Getenv("EINHORN_FD_0"))
	case "php-fpm":
		number, found := strings.CutPrefix(os.Getenv("FPM_SOCKETS"), *addr+"=")
		if !found {
			return 0, fmt.Errorf("FPM_SOCKETS=%s", os.Getenv("FPM_SOCKETS"))
		}
		return strconv.Atoi(number)
	}
	return strconv.Atoi(strings.TrimPrefix(*take, "fd:"))
}

func tableflipListener() (net.Listener, error) {
	up, err := tableflip.New(tableflip.Options{})
	if err != nil {
		return nil, err
	}
	if !up.HasParent() {
		return nil, errors.New("tableflip sees no parent")
	}
	ln, err := up.Listen(*network, *addr)
	if err != nil {
		return nil, err
	}
	return ln, up.Ready()
}

func serveHTTP(ln net.Listener) error {
	begun := time.Now()
	mux := http.NewServeMux()
	mux.Handle("/", demo.Handler(os.Getenv("GRACE_GENERATION")))
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
		if ill.Load() || time.Since(begun) < *health {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("GET /env", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, strings.Join(os.Environ(), "\n"))
	})
	hang := make(chan struct{})
	mux.HandleFunc("GET /listen", func(w http.ResponseWriter, r *http.Request) { // at a further address
		l, err := net.Listen("tcp", r.URL.Query().Get("at"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		go http.Serve(l, mux)
	})
	mux.HandleFunc("GET /ill", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Pid", strconv.Itoa(os.Getpid()))
		ill.Store(true)
	})
	mux.HandleFunc("GET /grow", func(http.ResponseWriter, *http.Request) { grow() })
	mux.HandleFunc("GET /hang", func(http.ResponseWriter, *http.Request) { close(hang) })
	if *watchdog {
		go giveSigns(hang)
	}
	if *ignoreTerm {
		signal.Ignore(syscall.SIGTERM)
		return http.Serve(ln, mux)
	}
	if *shutdown {
		// A listener that another generation shut down fails here with EINVAL, and the app ends.
		go func() { fmt.Fprintln(os.Stderr, "app:", http.Serve(ln, mux)); os.Exit(1) }()
		return shutDownAtTerm(ln)
	}
	if *plain {
		return servePlain(ln, mux)
	}
	sayThatItDrains()
	// A TERM that came before drain listens for signals begins the drain too.
	ctx, cancel := context.WithCancel(context.Background())
	go func() { <-terminated; cancel() }()
	return drain.Serve(&http.Server{Handler: mux}, ln, drain.Linger(2*time.Second), drain.Context(ctx))
}

var (
	ill   atomic.Bool // /health is answered with 503
	grown []byte
)

// grow uses 150 MB more, for good.
func grow() {
	grown = make([]byte, 150<<20)
	for i := 0; i < len(grown); i += os.Getpagesize() {
		grown[i] = 1
	}
}

func servePlain(ln net.Listener, handler http.Handler) error {
	server := &http.Server{Handler: handler}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(ln) }()
	select {
	case err := <-failed:
		return err
	case <-terminated:
		return server.Shutdown(context.Background())
	}
}

// sayThatItDrains is for package drain, which finds no NOTIFY_SOCKET here: the app says itself when it is ready.
func sayThatItDrains() {
	if notifySocket == "" {
		return
	}
	if err := send("X_GRACE_DRAINS=1"); err != nil {
		fmt.Fprintln(os.Stderr, "app:", err)
	}
}

func giveSigns(hang <-chan struct{}) {
	for tick := time.Tick(50 * time.Millisecond); ; {
		select {
		case <-tick:
			if err := send("WATCHDOG=1"); err != nil {
				fmt.Fprintln(os.Stderr, "app:", err)
			}
		case <-hang:
			return
		}
	}
}

func shutDownAtTerm(ln net.Listener) error {
	<-terminated
	raw, err := ln.(syscall.Conn).SyscallConn()
	if err != nil {
		return err
	}
	return errors.Join(raw.Control(func(fd uintptr) { err = syscall.Shutdown(int(fd), syscall.SHUT_RD) }), err)
}

// serveEcho ends when it is told to and its connections are gone.
func serveEcho(ln net.Listener) error {
	if l, ok := ln.(*net.UnixListener); ok {
		l.SetUnlinkOnClose(false)
	}
	go func() {
		<-terminated
		ln.Close()
	}()
	var open sync.WaitGroup
	for {
		conn, err := ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			open.Wait()
			return nil
		}
		if err != nil {
			return err
		}
		open.Go(func() {
			io.Copy(conn, conn)
			conn.Close()
		})
	}
}

func servePackets() error {
	conn, err := handoff.ListenPacketNamed("web", *network, *addr)
	if err != nil {
		return err
	}
	go announce()
	go func() {
		<-terminated
		conn.SetReadDeadline(time.Unix(1, 0))
	}()
	buffer := make([]byte, 1<<16)
	for {
		n, from, err := conn.ReadFrom(buffer)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := conn.WriteTo(buffer[:n], from); err != nil {
			return err
		}
	}
}
