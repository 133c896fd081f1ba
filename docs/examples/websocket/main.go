// Websocket is a WebSocket server with coder/websocket. When the drain ends the streams, it sends each client the close frame
// 1001 (going away) between two messages. The handlers need no code for that: their next Read or Write fails.
//
//	go run ./websocket                                             # alone; Ctrl-C ends it
//	go build -o app ./websocket && grace run --listen :8080 -- ./app   # then build again, and: kill -HUP "$(pidof grace)"
package main

import (
	"flag"
	"log"
	"net/http"
	"time"

	"github.com/coder/websocket"
	"github.com/gracerun/grace/drain"
)

var addr = flag.String("addr", ":8080", "where to listen")

func main() {
	flag.Parse()
	if err := drain.ListenAndServe(&http.Server{Addr: *addr, Handler: routes()}); err != nil {
		log.Fatal(err)
	}
}

func routes() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("/echo", echo)
	mux.HandleFunc("/clock", clock)
	return mux
}

func echo(w http.ResponseWriter, r *http.Request) {
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer conn.CloseNow()
	for {
		kind, message, err := conn.Read(r.Context())
		if err != nil || conn.Write(r.Context(), kind, message) != nil {
			return
		}
	}
}

// clock sends messages without a request. CloseRead reads the client's close frame.
func clock(w http.ResponseWriter, r *http.Request) {
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer conn.CloseNow()
	ctx := conn.CloseRead(r.Context())
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			if conn.Write(ctx, websocket.MessageText, []byte(now.Format(time.RFC3339Nano))) != nil {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}
