package main

import (
	"net/http"

	"github.com/coder/websocket"
)

// converse adds each message to the journal, and then sends it back. It needs no code for the drain: once the
// close frame 1001 (going away) was sent to the client, Read or Write fails.
func (j *journal) converse(w http.ResponseWriter, r *http.Request) {
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer conn.CloseNow()
	for {
		kind, entry, err := conn.Read(r.Context())
		if err != nil || j.add(string(entry)) != nil || conn.Write(r.Context(), kind, entry) != nil {
			return
		}
	}
}
