// Gorilla is a WebSocket server with gorilla/websocket. When the drain ends the streams, it sends each client the close frame
// 1001 (going away) between two messages. The handlers need no code for that: their next read or write fails.
//
//	go run ./gorilla                                             # alone; Ctrl-C ends it
//	go build -o app ./gorilla && grace run --listen :8080 -- ./app   # then build again, and: kill -HUP "$(pidof grace)"
package main

import (
	"flag"
	"log"
	"net/http"
	"time"

	"github.com/gorilla/websocket"
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

var upgrader websocket.Upgrader

func echo(w http.ResponseWriter, r *http.Request) {
	conn, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	defer conn.Close()
	for {
		kind, message, err := conn.ReadMessage()
		if err != nil || conn.WriteMessage(kind, message) != nil {
			return
		}
	}
}

// clock sends messages without a request.
func clock(w http.ResponseWriter, r *http.Request) {
	conn, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	defer conn.Close()
	gone := make(chan struct{})
	go readToEnd(conn, gone)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			if conn.WriteMessage(websocket.TextMessage, []byte(now.Format(time.RFC3339Nano))) != nil {
				return
			}
		case <-gone:
			return
		}
	}
}

// readToEnd reads until the client's close frame.
func readToEnd(conn *websocket.Conn, gone chan<- struct{}) {
	defer close(gone)
	for {
		if _, _, err := conn.NextReader(); err != nil {
			return
		}
	}
}
