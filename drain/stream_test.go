package drain

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

func TestCancelledRouteEndsWhileAnOrdinaryOneIsFinished(t *testing.T) {
	begun, finish := make(chan struct{}, 2), make(chan struct{})
	mux := http.NewServeMux()
	mux.Handle("/stream", CancelOnDrain(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begun <- struct{}{}
		<-r.Context().Done()
		fmt.Fprint(w, context.Cause(r.Context()))
	})))
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		begun <- struct{}{}
		<-finish
		fmt.Fprint(w, context.Cause(r.Context()))
	})
	s := serve(t, &http.Server{Handler: mux}, listen(t))
	stream, _ := s.connect()
	slow, draining := s.connect()
	for c, path := range map[*client]string{stream: "/stream", slow: "/slow"} {
		if err := c.send(path, ""); err != nil {
			t.Fatal(err)
		}
		receive(t, begun)
	}
	s.cancel()
	receive(t, draining)
	close(finish)
	slow.mustReceive(t, "<nil>", true)
	stream.mustReceive(t, ErrDraining.Error(), true)
	stream.conn.Close()
	slow.conn.Close()
	s.end("")
}

func TestStreamOfAServerThatIsNotServesEndsWithTheBeginning(t *testing.T) {
	d, _ := newQuiet()
	d.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ending, ended := Stream(r.Context())
		defer ended()
		d.On(Requests, "framework", func(context.Context) error { receive(t, ending); return nil })
		d.Drain()
		receive(t, ending)
	})).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil))
	receive(t, d.Done())
}

func TestCancelWithoutServeLeavesTheRequestAlone(t *testing.T) {
	called := false
	CancelOnDrain(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		called = true
		if err := r.Context().Err(); err != nil {
			t.Error(err)
		}
	})).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil))
	if !called {
		t.Error("the handler was not called")
	}
}

func TestCancelPassesOnThatTheClientLeft(t *testing.T) {
	begun, cause := make(chan struct{}), make(chan error, 1)
	s := serve(t, &http.Server{Handler: CancelOnDrain(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(begun)
		<-r.Context().Done()
		cause <- context.Cause(r.Context())
	}))}, listen(t))
	c, _ := s.connect()
	if err := c.send("/", ""); err != nil {
		t.Fatal(err)
	}
	receive(t, begun)
	c.conn.Close()
	if err := receive(t, cause); err != context.Canceled {
		t.Errorf("the cause is %v", err)
	}
	s.cancel()
	s.end("")
}

// Where it stays open, a client that comes back at once sends its next request to a process that has come to its end.
func TestConnectionEndsWithItsStream(t *testing.T) {
	begun := make(chan struct{})
	s := serve(t, &http.Server{Handler: CancelOnDrain(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).Flush()
		close(begun)
		<-r.Context().Done()
	}))}, listen(t))
	c, _ := s.connect()
	if err := c.send("/", ""); err != nil {
		t.Fatal(err)
	}
	receive(t, begun)
	s.cancel()
	c.mustReceive(t, "", true)
	c.mustEnd(t)
	s.end("")
}

func TestConnectionOfAnEndedStreamIsUsedAgain(t *testing.T) {
	s := serve(t, &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, ended := Stream(r.Context())
		ended()
	})}, listen(t))
	c, _ := s.connect()
	c.mustPost(t, "", false)
	c.mustPost(t, "", false)
	c.conn.Close()
	s.cancel()
	s.end("")
}

// With HTTP/2 the request's connection goes on with the stream, so its state does not tell that the request has ended.
func TestStreamEndsAfterARequestBesideItThatOutlastsTheLinger(t *testing.T) {
	mux, begun := http.NewServeMux(), make(chan struct{})
	mux.Handle("/stream", CancelOnDrain(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})))
	mux.HandleFunc("/slow", func(_ http.ResponseWriter, r *http.Request) {
		close(begun)
		<-Draining(r.Context())
		time.Sleep(200 * time.Millisecond)
	})
	plain := new(http.Protocols)
	plain.SetUnencryptedHTTP2(true)
	d, _ := newQuiet(Linger(time.Millisecond), Timeout(forever))
	ln := listen(t)
	mustStart(t, d, &http.Server{Handler: mux, Protocols: plain}, ln)
	client := http.Client{Transport: &http.Transport{Protocols: plain}, Timeout: testTimeout}
	defer client.CloseIdleConnections()
	stream, err := client.Get("http://" + ln.Addr().String() + "/stream")
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Body.Close()
	answered := make(chan error, 1)
	go func() {
		resp, err := client.Get("http://" + ln.Addr().String() + "/slow")
		if err == nil {
			err = resp.Body.Close()
		}
		answered <- err
	}()
	receive(t, begun)
	d.Drain()
	if err := receive(t, answered); err != nil {
		t.Error(err)
	}
	if _, err := io.Copy(io.Discard, stream.Body); err != nil {
		t.Error(err)
	}
	receive(t, d.Done())
}
