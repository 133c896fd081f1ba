package drain

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// Each way in which a header can be written first, after the drain has begun.
func TestClientIsAskedToLeaveWhenTheHeaderIsWritten(t *testing.T) {
	for name, write := range map[string]func(w http.ResponseWriter){
		"not at all":    func(http.ResponseWriter) {},
		"WriteHeader":   func(w http.ResponseWriter) { w.WriteHeader(http.StatusOK) },
		"Write":         func(w http.ResponseWriter) { w.Write(nil) },
		"WriteString":   func(w http.ResponseWriter) { io.WriteString(w, "") },
		"ReadFrom":      func(w http.ResponseWriter) { io.Copy(w, io.LimitReader(strings.NewReader(""), 1)) },
		"Flush":         func(w http.ResponseWriter) { w.(http.Flusher).Flush() },
		"FlushError":    func(w http.ResponseWriter) { http.NewResponseController(w).Flush() },
		"informational": func(w http.ResponseWriter) { w.WriteHeader(http.StatusEarlyHints); w.WriteHeader(http.StatusOK) },
	} {
		t.Run(name, func(t *testing.T) {
			begun := make(chan struct{})
			s := serve(t, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				close(begun)
				<-Draining(r.Context())
				write(w)
			})}, listen(t))
			c, _ := s.connect()
			if err := c.send("/", ""); err != nil {
				t.Fatal(err)
			}
			receive(t, begun)
			s.cancel()
			if name == "informational" {
				if resp, err := http.ReadResponse(c.r, nil); err != nil || resp.StatusCode != http.StatusEarlyHints {
					t.Fatal(resp, err)
				}
			}
			c.mustReceive(t, "", true)
			c.mustEnd(t)
			s.end("")
		})
	}
}

func TestHeaderThatIsWrittenStaysAsItIs(t *testing.T) {
	written := make(chan struct{}, 2)
	s := serve(t, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).Flush()
		written <- struct{}{}
		<-Draining(r.Context())
		io.WriteString(w, "the rest")
		if got := w.Header().Get("Connection"); got != "" {
			t.Errorf("there is Connection: %s in a header that is written", got)
		}
	})}, listen(t))
	c, _ := s.connect()
	if err := c.send("/", ""); err != nil {
		t.Fatal(err)
	}
	receive(t, written)
	s.cancel()
	c.mustReceive(t, "the rest", false)
	c.conn.Close()
	s.end("")
}

func TestResponseCanDoWhatTheServersCan(t *testing.T) {
	s := serve(t, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		controller := http.NewResponseController(w)
		if err := controller.EnableFullDuplex(); err != nil {
			t.Error(err)
		}
		//lint:ignore SA1019 gin's own writer takes it for granted that there is one
		if w.(http.CloseNotifier).CloseNotify() == nil {
			t.Error("it cannot tell that a client left")
		}
		conn, _, err := controller.Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		fmt.Fprint(conn, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\ntaken")
	})}, listen(t))
	c, _ := s.connect()
	if err := c.send("/", ""); err != nil {
		t.Fatal(err)
	}
	c.mustReceive(t, "taken", true)
	c.mustEnd(t)
	s.cancel()
	s.end("")
}
