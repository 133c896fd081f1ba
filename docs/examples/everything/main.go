// Everything is a journal: all followers see each entry that is added. Entries are added over HTTP/1.1 and HTTP/2, over
// WebSockets, over gRPC and by background jobs. When the program is replaced, no entry, request, stream or job is lost, and
// none comes twice.
//
//	go run ./everything                                             # alone; Ctrl-C ends it
//	go build -o app ./everything
//	grace run --listen :8080 --listen :50051 -- ./app   # then build again, and: kill -HUP "$(pidof grace)"
//	curl -N localhost:8080/events &
//	curl -d hello localhost:8080/entries
//	curl --http2-prior-knowledge -d hello localhost:8080/entries
//	curl -d 1.5s localhost:8080/jobs
package main

import (
	"context"
	"flag"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/gracerun/grace/drain"
	"github.com/gracerun/grace/drain/grpcdrain"
	"github.com/gracerun/grace/drain/sse"
	"github.com/gracerun/grace/handoff"
	testpb "google.golang.org/grpc/interop/grpc_testing"
)

var (
	addr    = flag.String("addr", ":8080", "where to listen for HTTP")
	rpcAddr = flag.String("grpc", ":50051", "where to listen for gRPC")
	folder  = flag.String("data", ".", "the folder of the journal and of the jobs")
)

const (
	workers = 4
	linger  = 2 * time.Second // longer than clients think between two requests
)

func main() {
	flag.Parse()
	if err := run(); err != nil {
		slog.Error("the program ended with an error", "error", err)
		os.Exit(1)
	}
}

// run first does what can fail. Then it registers the parts of the program with the drain, which ends them in order:
// listeners, requests, streams, workers, and last the journal, which all of them use.
func run() error {
	web, err := handoff.Listen("tcp", *addr)
	if err != nil {
		return err
	}
	rpc, err := handoff.Listen("tcp", *rpcAddr)
	if err != nil {
		return err
	}
	j, err := openJournal(*folder)
	if err != nil {
		return err
	}
	d := drain.New(drain.Linger(linger))
	d.Close("journal", j)

	news := &sse.Broadcast{From: j.after, Start: j.start}
	d.Go("news", func(ctx context.Context) error { return j.follow(ctx, news) })

	jobs := &queue{*folder, j}
	for range workers {
		drain.Consume(d, "jobs", jobs.receive, jobs.work)
	}

	if err := d.Start(&http.Server{Handler: routes(j, news, jobs), Protocols: protocols()}, web); err != nil {
		return err
	}

	calls := grpcdrain.NewServer(d)
	testpb.RegisterTestServiceServer(calls, service{journal: j})
	if err := calls.Start(rpc); err != nil {
		return err
	}

	return d.Wait()
}

// protocols enables HTTP/1.1, and HTTP/2 without TLS, on the same address.
func protocols() *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(true)
	p.SetUnencryptedHTTP2(true)
	return p
}

func routes(j *journal, news http.Handler, jobs *queue) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", hello)
	mux.HandleFunc("GET /slow", slow)
	mux.HandleFunc("POST /echo", echo)
	mux.HandleFunc("POST /entries", j.post)
	mux.HandleFunc("POST /jobs", jobs.post)
	mux.HandleFunc("GET /socket", j.converse)
	mux.Handle("GET /events", news)
	return signed(mux)
}
