package drain

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"sync"
)

// http1Writer has all methods of net/http's own ResponseWriter for HTTP/1, because handlers may rely on them.
type http1Writer interface {
	http.ResponseWriter
	http.Flusher
	http.Hijacker
	//lint:ignore SA1019 gin's own writer requires it
	http.CloseNotifier
	io.ReaderFrom
	io.StringWriter
	FlushError() error
}

// response sets Connection: close as late as possible, when the header is written, because the drain may have begun since
// the request came.
//
// Responses are pooled, as net/http pools its buffers: a handler must not use its ResponseWriter after it has returned.
type response struct {
	http1Writer
	drain      *Drain
	request    *http.Request
	connection *connection // nil if the server was not given to Start
	header     bool        // the header is written
	switched   bool        // status 101 is written
	taken      bool        // the handler has hijacked the connection
}

var responses = sync.Pool{New: func() any { return new(response) }}

func (d *Drain) newResponse(w http1Writer, request *http.Request, c *connection) *response {
	r := responses.Get().(*response)
	r.http1Writer, r.drain, r.request, r.connection = w, d, request, c
	return r
}

// end is called after the handler. A handler that has hijacked the connection may still use its response.
func (r *response) end() {
	if r.taken {
		return
	}
	r.closeAfterResponse()
	*r = response{}
	responses.Put(r)
}

// closeAfterResponse always closes the connection of a stream: otherwise the client would send its next request on it, to a
// process that is ending.
func (r *response) closeAfterResponse() {
	switch {
	case r.header:
	case r.connection != nil && r.connection.streamCount() > 0:
		r.Header().Set("Connection", "close")
	default:
		r.drain.closeAfterResponse(r)
	}
}

func (r *response) WriteHeader(status int) {
	if status >= 200 {
		r.closeAfterResponse()
		r.header = true
	}
	r.switched = status == http.StatusSwitchingProtocols
	r.http1Writer.WriteHeader(status)
}

func (r *response) begin() {
	r.closeAfterResponse()
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

// Unwrap is used by http.ResponseController.
func (r *response) Unwrap() http.ResponseWriter { return r.http1Writer }

// Hijack returns a connection that the drain knows: if it is a WebSocket, the drain tells its client to leave.
func (r *response) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffered, err := r.drain.hijacks.hijack(r.http1Writer, upgradesToWebSocket(r.request.Header), !r.switched)
	r.taken = err == nil
	return conn, buffered, err
}
