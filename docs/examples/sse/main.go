// Sse is a message board: all followers see each line that is posted. No line is lost or sent twice when the program is
// replaced, because the lines are in a file that each process follows. A line's ID is the position in the file at which it
// ends. A table with a serial number works as well.
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
		slog.Error("the board ended with an error", "error", err)
		os.Exit(1)
	}
}

// run follows the board until the last stream has ended, and then closes it.
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
