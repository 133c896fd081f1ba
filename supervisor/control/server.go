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

// What a server reads is bounded.
const (
	maxHeader = 16 << 10
	maxBody   = 1 << 20
)

// limits are what clients can take from a server.
type limits struct {
	connections int
	answers     int           // that are waited for at once; the other connections are left for status
	read        time.Duration // for a request
	write       time.Duration // for each line of an answer
	idle        time.Duration
	status      time.Duration // for the backend
	close       time.Duration
}

var defaultLimits = limits{
	connections: 256,
	answers:     128,
	read:        5 * time.Second,
	write:       5 * time.Second,
	idle:        30 * time.Second,
	status:      5 * time.Second,
	close:       time.Second,
}

// Server answers on a control socket.
type Server struct {
	backend Backend
	limits  limits
	http    *http.Server
	answers chan struct{} // an element for each that is under way
	ended   chan error
}

// Serve answers on l until Close, and owns l from now on.
func Serve(l *net.UnixListener, b Backend) *Server { return serve(l, b, defaultLimits) }

func serve(l *net.UnixListener, b Backend, most limits) *Server {
	s := &Server{backend: b, limits: most, answers: make(chan struct{}, most.answers), ended: make(chan error, 1)}
	s.http = &http.Server{
		Handler:           s,
		ReadHeaderTimeout: most.read,
		WriteTimeout:      most.write,
		IdleTimeout:       most.idle,
		MaxHeaderBytes:    maxHeader,
		ConnContext:       withPeer,
		ErrorLog:          log.New(io.Discard, "", 0),
	}
	limited := LimitConnections(s.http, l, most.connections)
	go func() { s.ended <- s.http.Serve(limited) }()
	return s
}

// Close takes no further request, gives the answers that are being written a second
// to go out, and ends all connections. It is called once. It leaves the socket's path.
func (s *Server) Close() error {
	if err := Shutdown(s.http, s.ended, s.limits.close); err != nil {
		return fmt.Errorf("the control socket failed: %w", err)
	}
	return nil
}

// operations are the paths to POST to, and what a body may say there.
var operations = map[string]func(*json.Decoder, *Request) error{
	path(Upgrade):  readUpgrade,
	path(Rollback): readNothing,
	path(Scale):    readScale,
	path(Promote):  readPromote,
	path(Stop):     readStop,
	path(Reexec):   readNothing,
	path(Release):  readNothing,
	path(Signal):   readSignal,
}

const statusPath = "/v1/status"

func path(d Operation) string { return "/v1/" + string(d) }

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// net/http reads what is left of a body before it lets a connection go.
	if http.NewResponseController(w).SetReadDeadline(time.Now().Add(s.limits.read)) != nil {
		return // the connection is gone
	}
	if why := refusalOf(r.Context()); why != "" {
		w.Header().Set("Connection", "close")
		s.fail(w, http.StatusForbidden, why)
		return
	}
	if r.URL.Path == statusPath {
		s.status(w, r)
		return
	}
	if read, ok := operations[r.URL.Path]; ok {
		s.operate(w, r, read)
		return
	}
	s.fail(w, http.StatusNotFound, "no such path (there are GET /v1/status and POST /v1/upgrade, /v1/rollback, /v1/scale, /v1/promote, /v1/stop, /v1/reexec, /v1/release, /v1/signal)")
}

func (s *Server) status(w http.ResponseWriter, r *http.Request) {
	if !s.allow(w, r, http.MethodGet, http.MethodHead) {
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), s.limits.status)
	defer cancel()
	status, err := s.backend.Status(ctx)
	if err != nil {
		s.decline(w, http.StatusServiceUnavailable, err)
		return
	}
	s.reply(w, http.StatusOK, status)
}

func (s *Server) operate(w http.ResponseWriter, r *http.Request, read func(*json.Decoder, *Request) error) {
	if !s.allow(w, r, http.MethodPost) {
		return
	}
	request, status, err := readRequest(w, r, read)
	if err != nil {
		s.fail(w, status, err.Error())
		return
	}
	select {
	case s.answers <- struct{}{}:
		defer func() { <-s.answers }()
	default:
		s.fail(w, http.StatusServiceUnavailable, fmt.Sprintf("%d requests already wait for their results (try again later)", s.limits.answers))
		return
	}
	lines, err := s.backend.Ask(r.Context(), request)
	if err != nil {
		s.decline(w, http.StatusConflict, err)
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	s.stream(w, r.Context(), lines)
}

// stream says that the request was accepted, and writes each line as it comes, until a reader is gone or takes none for too
// long. The backend does not wait for what it has left unread.
func (s *Server) stream(w http.ResponseWriter, ctx context.Context, lines <-chan Line) {
	out, conn := encoder(w), http.NewResponseController(w)
	if conn.SetReadDeadline(time.Time{}) != nil || s.allowWrite(w) != nil || conn.Flush() != nil {
		return
	}
	for {
		select {
		case line, more := <-lines:
			if !more || s.allowWrite(w) != nil || out.Encode(line) != nil || conn.Flush() != nil {
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

func (s *Server) allow(w http.ResponseWriter, r *http.Request, methods ...string) bool {
	for _, m := range methods {
		if r.Method == m {
			return true
		}
	}
	w.Header().Set("Allow", strings.Join(methods, ", "))
	s.fail(w, http.StatusMethodNotAllowed, fmt.Sprintf("%s takes %s, not %s", r.URL.Path, methods[0], r.Method))
	return false
}

// decline says an error of the backend's.
func (s *Server) decline(w http.ResponseWriter, status int, err error) {
	if errors.Is(err, ErrLeaving) {
		status = http.StatusServiceUnavailable
		w.Header().Set(askAgain, "1")
	}
	s.fail(w, status, err.Error())
}

// askAgain is the header of an answer that another one will follow on.
const askAgain = "Retry-After"

// failure is the body of every answer that is none.
type failure struct {
	Error string `json:"error"`
}

func (s *Server) fail(w http.ResponseWriter, status int, why string) {
	s.reply(w, status, failure{why})
}

func (s *Server) reply(w http.ResponseWriter, status int, body any) {
	_ = s.allowWrite(w) // a connection that is gone, which the next line finds too
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = encoder(w).Encode(body) // who reads it has gone
}

func (s *Server) allowWrite(w http.ResponseWriter) error {
	return http.NewResponseController(w).SetWriteDeadline(time.Now().Add(s.limits.write))
}

// readRequest gives the HTTP status of an error with it.
func readRequest(w http.ResponseWriter, r *http.Request, read func(*json.Decoder, *Request) error) (Request, int, error) {
	request := Request{Do: Operation(strings.TrimPrefix(r.URL.Path, "/v1/"))}
	body := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
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
	return request, 0, nil
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
		Command  *[]string `json:"command"`
		Canary   string    `json:"canary"`
		MaxSurge string    `json:"max_surge"`
	}
	err := d.Decode(&body)
	r.Canary, r.MaxSurge = body.Canary, body.MaxSurge
	if err != nil || body.Command == nil {
		return err
	}
	r.Command = *body.Command
	if len(r.Command) == 0 || r.Command[0] == "" {
		return errors.New("command is empty (leave it out to run the same command again)")
	}
	for _, word := range r.Command {
		if strings.ContainsRune(word, 0) {
			return errors.New("command has a NUL character in it")
		}
	}
	return nil
}

func readScale(d *json.Decoder, r *Request) error {
	var body struct {
		Instances int `json:"instances"`
	}
	err := d.Decode(&body)
	r.Instances = body.Instances
	if err == nil && r.Instances < 1 {
		err = errors.New("instances has to be 1 at least")
	}
	return err
}

func readPromote(d *json.Decoder, r *Request) error {
	var body struct {
		Fully bool `json:"fully"`
	}
	err := d.Decode(&body)
	r.Fully = body.Fully
	return err
}

func readStop(d *json.Decoder, r *Request) error {
	var body struct {
		Now bool `json:"now"`
	}
	err := d.Decode(&body)
	r.Now = body.Now
	return err
}

func readSignal(d *json.Decoder, r *Request) error {
	var body struct {
		Signal string `json:"signal"`
	}
	err := d.Decode(&body)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	sig, known := ParseSignal(body.Signal)
	if !known {
		return fmt.Errorf("signal is %q: no such signal (write TERM, QUIT, USR1 ...)", body.Signal)
	}
	r.Signal = sig
	return err
}

func readNothing(d *json.Decoder, _ *Request) error { return d.Decode(&struct{}{}) }
