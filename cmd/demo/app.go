package demo

import (
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/gracerun/grace/cmd/load"
	"github.com/gracerun/grace/drain"
	"github.com/gracerun/grace/handoff"
	"github.com/spf13/cobra"
)

const (
	appCommand = "demo-app"
	socketName = "web"
)

// AppCommand is the web app that the demo runs: a hidden command of the same program.
func AppCommand() *cobra.Command {
	return &cobra.Command{
		Use:    appCommand,
		Short:  "The small web app that the demo upgrades",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE:   func(*cobra.Command, []string) error { return serveApp() },
	}
}

func serveApp() error {
	ln, err := handoff.ListenNamed(socketName, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	quiet := drain.Log(slog.New(slog.DiscardHandler)) // the demo shows what an app writes as a complaint
	return drain.Serve(&http.Server{Handler: Handler(os.Getenv("SERVER_STARTER_GENERATION"))}, ln, quiet)
}

// Handler is the app: GET /, POST /echo, GET /slow and GET /events, as the clients of package load ask for them. Every
// response says who answers.
func Handler(generation string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", hello)
	mux.HandleFunc("POST /echo", echo)
	mux.HandleFunc("GET /slow", slow)
	mux.HandleFunc("GET /events", events)
	pid := strconv.Itoa(os.Getpid())
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Generation", generation)
		w.Header().Set("X-Pid", pid)
		mux.ServeHTTP(w, r)
	})
}

func hello(w http.ResponseWriter, _ *http.Request) {
	fmt.Fprintf(w, "Hello from generation %s.\n", w.Header().Get("X-Generation"))
}

// echo reads the whole body first: net/http's server drops what is left of it when the response begins.
func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Write(body)
}

const slowParts = 10

// slow sends its body in parts, over about the time given by ?for=1s: half of it to one and a half, so that clients do not fall
// into step.
func slow(w http.ResponseWriter, r *http.Request) {
	whole, err := time.ParseDuration(r.FormValue("for"))
	if err != nil || whole < 0 {
		whole = time.Second
	}
	whole = whole/2 + rand.N(whole+1)
	part := strings.Repeat("slow and steady ", 64)
	body := strings.Repeat(part, slowParts)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.Header().Set(load.ChecksumHeader, load.Checksum([]byte(body)))
	tick := time.NewTicker(max(1, whole/slowParts))
	defer tick.Stop()
	for range slowParts {
		select {
		case <-tick.C:
		case <-r.Context().Done():
			return
		}
		io.WriteString(w, part)
		http.NewResponseController(w).Flush()
	}
}

const eventInterval = 100 * time.Millisecond

// events goes on after the client's last event, and ends between two events when the drain begins.
func events(w http.ResponseWriter, r *http.Request) {
	id, _ := strconv.Atoi(r.Header.Get("Last-Event-ID"))
	w.Header().Set("Content-Type", "text/event-stream")
	http.NewResponseController(w).Flush()
	tick := time.NewTicker(eventInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-drain.Draining(r.Context()):
			return
		case <-r.Context().Done():
			return
		}
		id++
		fmt.Fprintf(w, "id: %d\ndata: tick\n\n", id)
		http.NewResponseController(w).Flush()
	}
}
