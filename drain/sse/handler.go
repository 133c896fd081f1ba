package sse

import "net/http"

// Handler answers each request with a stream of events, which lasts until run returns. The response has begun when run
// is called, so checks that may refuse a request have to come before the Handler. The ResponseWriter must be able to flush,
// or have an Unwrap method that leads to one that can (see http.ResponseController); otherwise the response is status 500.
//
// The context of run's request is cancelled when the client has left or does not read, and when the drain ends the stream;
// in the latter case the cause is drain.ErrDraining. When run has returned, the client is told how long to wait (see Retry),
// and the response ends. An HTTP/1.1 connection ends with it, so that the client does not reconnect to this process. A
// request that arrives during the drain gets a stream that only contains Retry. With Finish the drain does none of this.
//
// An error of run is logged (see Log).
func Handler(run func(s *Stream, r *http.Request) error, opts ...Option) http.Handler {
	return &handler{run, newOptions(opts)}
}

type handler struct {
	run func(*Stream, *http.Request) error
	o   options
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !canFlush(w) {
		h.o.log.Error("cannot stream events: a wrapper of the ResponseWriter has neither Flush nor Unwrap", "path", r.URL.Path)
		http.Error(w, "cannot stream events", http.StatusInternalServerError)
		return
	}
	ending, ended := h.o.stream(r.Context())
	defer ended()
	s := newStream(w, r, h.o)
	defer s.close()
	if !s.open(r.ProtoMajor, ending) {
		return
	}
	err := h.run(s, r.WithContext(s.ctx))
	if err != nil && s.ctx.Err() == nil {
		h.o.log.Warn("a stream of events ended with an error", "path", r.URL.Path, "error", err)
	}
}

// canFlush looks for Flush as http.ResponseController does. It does not call it, because that would begin the response.
func canFlush(w http.ResponseWriter) bool {
	for {
		switch outer := w.(type) {
		case http.Flusher, interface{ FlushError() error }:
			return true
		case interface{ Unwrap() http.ResponseWriter }:
			w = outer.Unwrap()
		default:
			return false
		}
	}
}
