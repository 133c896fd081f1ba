package main

import (
	"net/http"

	"github.com/coder/websocket"
)

// converse adds each message to the journal, and sends it back when it is there. It knows nothing of the drain: when the
// client has been told 1001, going away, Read or Write fails.
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
