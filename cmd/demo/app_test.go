package demo

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/gracerun/grace/cmd/load"
	"github.com/gracerun/grace/drain"
)

func TestAppAnswersEveryKindOfClient(t *testing.T) {
	server := httptest.NewServer(Handler("5"))
	defer server.Close()
	l, err := load.Start(t.Context(), load.Config{
		Addr:    server.Listener.Addr().String(),
		Clients: divide(10),
		Paths:   map[load.Kind]string{load.Slow: "/slow?for=50ms"},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if _, err := l.Await(ctx, func(s load.Source) bool { return s == load.Source{Generation: 5, Pid: os.Getpid()} }); err != nil {
		t.Error(err)
	}
	for seen := (load.Tally{}); seen.Requests(load.Slow) < 3 || seen.Events() < 3; seen = l.Snapshot() {
		if ctx.Err() != nil {
			t.Fatal(seen)
		}
	}
	if tally := l.Stop(); tally.Failures() != 0 {
		t.Error(tally)
	}
}

func TestEventsEndBetweenTwoWhenTheDrainBegins(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, begin := context.WithCancel(t.Context())
	served := make(chan error)
	go func() {
		served <- drain.Serve(&http.Server{Handler: Handler("1")}, ln, drain.Context(ctx), drain.Signals(), drain.Timeout(5*time.Second))
	}()
	response, err := http.Get("http://" + ln.Addr().String() + "/events")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	begin()
	if text, err := io.ReadAll(response.Body); err != nil || len(text) > 0 && !strings.HasSuffix(string(text), "\n\n") {
		t.Errorf("the stream ended with %v after %q", err, text)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func TestSlowResponseIsWhole(t *testing.T) {
	for _, query := range []string{"?for=20ms", "?for=0s", "?for=-1s", "?for=x", ""} {
		t.Run(query, func(t *testing.T) {
			t.Parallel()
			w := httptest.NewRecorder()
			Handler("1").ServeHTTP(w, httptest.NewRequest("GET", "/slow"+query, nil))
			if body := w.Body.Bytes(); w.Code != 200 || load.Checksum(body) != w.Header().Get(load.ChecksumHeader) {
				t.Errorf("status %d, %d bytes", w.Code, len(body))
			}
		})
	}
}
