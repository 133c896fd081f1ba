package drain

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"sync"
)

// http1Writer is what net/http gives to handlers of HTTP/1, on which they may rely.
type http1Writer interface {
	http.ResponseWriter
	http.Flusher
	http.Hijacker
	//lint:ignore SA1019 gin's own writer takes it for granted that there is one
	http.CloseNotifier
	io.ReaderFrom
	io.StringWriter
	FlushError() error
}

// response asks the client to leave as late as one can: when the header is written, the drain may have begun since the
// request came.
//
// Responses are used again, as net/http does with its own buffers: a ResponseWriter ends with its handler.
type response struct {
	http1Writer
	drain      *Drain
	request    *http.Request
	connection *connection // nil if the server is not Serve's
	header     bool        // it is written
	switched   bool        // 101 is written
	taken      bool        // the connection is a hijacker's
}

var responses = sync.Pool{New: func() any { return new(response) }}

func (d *Drain) newResponse(w http1Writer, request *http.Request, c *connection) *response {
	r := responses.Get().(*response)
	r.http1Writer, r.drain, r.request, r.connection = w, d, request, c
	return r
}

// end is called after the handler. Whoever took the connection may keep its response as well.
func (r *response) end() {
	if r.taken {
		return
	}
	r.leave()
	*r = response{}
	responses.Put(r)
}

// leave has the connection of a stream end with it in any case: the client would send the next request by it, to a
// process that has come to its end.
func (r *response) leave() {
	switch {
	case r.header:
	case r.connection != nil && r.connection.endless() > 0:
		r.Header().Set("Connection", "close")
	default:
		r.drain.askToLeave(r)
	}
}

func (r *response) WriteHeader(status int) {
	if status >= 200 {
		r.leave()
		r.header = true
	}
	r.switched = status == http.StatusSwitchingProtocols
	r.http1Writer.WriteHeader(status)
}

func (r *response) begin() {
	r.leave()
	r.header = true
}

func (r *response) Write(p []byte) (int, error) {
	r.begin()
	return r.http1Writer.Write(p)
}

func (r *response) WriteString(s string) (int, error) {
	r.begin()
	return r.http1Writer.WriteString(s)
}

func (r *response) ReadFrom(src io.Reader) (int64, error) {
	r.begin()
	return r.http1Writer.ReadFrom(src)
}

func (r *response) Flush() {
	r.begin()
	r.http1Writer.Flush()
}

func (r *response) FlushError() error {
	r.begin()
	return r.http1Writer.FlushError()
}

// Unwrap is for http.ResponseController.
func (r *response) Unwrap() http.ResponseWriter { return r.http1Writer }

// Hijack gives a connection of which the drain knows: it tells the client of a WebSocket to leave.
func (r *response) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffered, err := r.drain.hijacks.hijack(r.http1Writer, upgradesToWebSocket(r.request.Header), !r.switched)
	r.taken = err == nil
	return conn, buffered, err
}
