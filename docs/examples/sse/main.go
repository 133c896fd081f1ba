// Sse is a board: whoever posts a line, all that follow see it. No line is lost or comes twice when the program is
// replaced, for the lines are in a file that each process follows, and a line's ID is the place in the file at which it
// ends. A table with a serial number does as well.
//
//	go run ./sse                                             # alone; Ctrl-C ends it
//	go build -o app ./sse && grace run --listen :8080 -- ./app   # then build again, and: kill -HUP "$(pidof grace)"
//	curl -N localhost:8080 &
//	curl -d hello localhost:8080
package main

import (
	"context"
	"flag"
	"log/slog"
	"net/http"
	"os"

	"github.com/gracerun/grace/drain"
	"github.com/gracerun/grace/drain/sse"
	"github.com/gracerun/grace/handoff"
)

var (
	addr = flag.String("addr", ":8080", "where to listen")
	path = flag.String("board", "board.txt", "the file with the lines")
)

func main() {
	flag.Parse()
	if err := run(); err != nil {
		slog.Error("the board did not end well", "error", err)
		os.Exit(1)
	}
}

// run has the board followed until the last stream has ended, and closed after that.
func run() error {
	ln, err := handoff.Listen("tcp", *addr)
	if err != nil {
		return err
	}
	b, err := openBoard(*path)
	if err != nil {
		return err
	}
	news := &sse.Broadcast{From: b.after, Start: b.start}
	d := drain.New()
	d.Close("board", b.file)
	d.Go("news", func(ctx context.Context) error { return b.follow(ctx, news) })
	if err := d.Start(&http.Server{Handler: routes(b, news)}, ln); err != nil {
		return err
	}
	return d.Wait()
}

func routes(b *board, news *sse.Broadcast) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /", news)
	mux.HandleFunc("POST /", b.post)
	return mux
}
