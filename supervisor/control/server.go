package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

// Bounds of what clients can take from a server.
const (
	mostConnections = 256
	mostAnswers     = 128 // that are waited for at once; what is left is for status
	mostHeader      = 16 << 10
	mostBody        = 1 << 20
	readLimit       = 5 * time.Second // for a request
	writeLimit      = 5 * time.Second // for each line of an answer
	idleLimit       = 30 * time.Second
	statusLimit     = 5 * time.Second
	closeLimit      = time.Second
)

// Server answers on a control socket.
type Server struct {
	backend Backend
	http    *http.Server
	answers chan struct{} // one place for each that is under way
	ended   chan error
}

// Serve answers on l until Close, and owns l from now on.
func Serve(l *net.UnixListener, b Backend) *Server {
	s := &Server{backend: b, answers: make(chan struct{}, mostAnswers), ended: make(chan error, 1)}
	s.http = &http.Server{
		Handler:           s,
		ReadHeaderTimeout: readLimit,
		WriteTimeout:      writeLimit,
		IdleTimeout:       idleLimit,
		MaxHeaderBytes:    mostHeader,
		ConnContext:       withPeer,
		ErrorLog:          log.New(io.Discard, "", 0),
	}
	go func() { s.ended <- s.http.Serve(newLimited(l, mostConnections)) }()
	return s
}

// Close takes no further request, lets the answers that are being written go out for a
// second, and ends all connections. It is called once. It leaves the socket's path.
func (s *Server) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeLimit)
	defer cancel()
	if s.http.Shutdown(ctx) != nil {
		_ = s.http.Close() // what Shutdown has begun
	}
	if err := <-s.ended; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("the control socket has ended early: %w", err)
	}
	return nil
}

// deeds are the paths to POST to, and what a body may say there.
var deeds = map[string]func(*json.Decoder, *Request) error{
	path(Upgrade):  readUpgrade,
	path(Rollback): readNothing,
	path(Stop):     readStop,
	path(Reexec):   readNothing,
}

const statusPath = "/v1/status"

func path(d Deed) string { return "/v1/" + string(d) }

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if why := distrust(r.Context()); why != "" {
		w.Header().Set("Connection", "close")
		fail(w, http.StatusForbidden, why)
		return
	}
	if r.URL.Path == statusPath {
		s.status(w, r)
		return
	}
	if read, ok := deeds[r.URL.Path]; ok {
		s.deed(w, r, read)
		return
	}
	fail(w, http.StatusNotFound, "no such path (there are GET /v1/status and POST /v1/upgrade, /v1/rollback, /v1/stop, /v1/reexec)")
}

func (s *Server) status(w http.ResponseWriter, r *http.Request) {
	if !allow(w, r, http.MethodGet, http.MethodHead) {
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), statusLimit)
	defer cancel()
	status, err := s.backend.Status(ctx)
	if err != nil {
		fail(w, http.StatusServiceUnavailable, err.Error())
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = encoder(w).Encode(status) // who reads it has gone
}

func (s *Server) deed(w http.ResponseWriter, r *http.Request, read func(*json.Decoder, *Request) error) {
	if !allow(w, r, http.MethodPost) {
		return
	}
	request, status, err := readRequest(w, r, read)
	if err != nil {
		fail(w, status, err.Error())
		return
	}
	select {
	case s.answers <- struct{}{}:
		defer func() { <-s.answers }()
	default:
		fail(w, http.StatusServiceUnavailable, fmt.Sprintf("%d requests wait for their results already (try again later)", mostAnswers))
		return
	}
	lines, err := s.backend.Ask(r.Context(), request)
	if err != nil {
		fail(w, http.StatusConflict, err.Error())
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	stream(w, r.Context(), lines)
}

// stream writes each line as it comes, until a reader is gone or takes none for too
// long. The backend does not wait for what it has left unread.
func stream(w http.ResponseWriter, ctx context.Context, lines <-chan Line) {
	out, conn := encoder(w), http.NewResponseController(w)
	if conn.Flush() != nil { // that it was accepted
		return
	}
	for {
		select {
		case line, more := <-lines:
			if !more || conn.SetWriteDeadline(time.Now().Add(writeLimit)) != nil || out.Encode(line) != nil || conn.Flush() != nil {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

func encoder(w io.Writer) *json.Encoder {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e
}

func allow(w http.ResponseWriter, r *http.Request, methods ...string) bool {
	for _, m := range methods {
		if r.Method == m {
			return true
		}
	}
	w.Header().Set("Allow", strings.Join(methods, ", "))
	fail(w, http.StatusMethodNotAllowed, fmt.Sprintf("%s takes %s, not %s", r.URL.Path, methods[0], r.Method))
	return false
}

// failure is the body of every answer that is none.
type failure struct {
	Error string `json:"error"`
}

func fail(w http.ResponseWriter, status int, why string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = encoder(w).Encode(failure{why}) // who reads it has gone
}

// readRequest gives the HTTP status of an error with it.
func readRequest(w http.ResponseWriter, r *http.Request, read func(*json.Decoder, *Request) error) (Request, int, error) {
	request := Request{Do: Deed(strings.TrimPrefix(r.URL.Path, "/v1/"))}
	conn := http.NewResponseController(w)
	if err := conn.SetReadDeadline(time.Now().Add(readLimit)); err != nil {
		return request, http.StatusInternalServerError, err
	}
	body := json.NewDecoder(http.MaxBytesReader(w, r.Body, mostBody))
	body.DisallowUnknownFields()
	err := read(body, &request)
	if errors.Is(err, io.EOF) {
		err = nil // an empty body asks for nothing special
	} else if err == nil {
		err = endOf(body)
	}
	if err != nil {
		return request, statusOf(err), fmt.Errorf("cannot read the request: %w", err)
	}
	return request, 0, conn.SetReadDeadline(time.Time{})
}

func endOf(body *json.Decoder) error {
	_, err := body.Token()
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err == nil {
		err = errors.New("there is more than one JSON object")
	}
	return err
}

func statusOf(err error) int {
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return http.StatusRequestEntityTooLarge
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return http.StatusRequestTimeout
	}
	return http.StatusBadRequest
}

func readUpgrade(d *json.Decoder, r *Request) error {
	var body struct {
		Command *[]string `json:"command"`
	}
	if err := d.Decode(&body); err != nil || body.Command == nil {
		return err
	}
	r.Command = *body.Command
	if len(r.Command) == 0 || r.Command[0] == "" {
		return errors.New("command is empty (leave it out to run the same again)")
	}
	for _, word := range r.Command {
		if strings.ContainsRune(word, 0) {
			return errors.New("command has a NUL character in it")
		}
	}
	return nil
}

func readStop(d *json.Decoder, r *Request) error {
	var body struct {
		Now bool `json:"now"`
	}
	err := d.Decode(&body)
	r.Now = body.Now
	return err
}

func readNothing(d *json.Decoder, _ *Request) error { return d.Decode(&struct{}{}) }
