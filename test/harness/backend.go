package harness

import (
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// ServeBackend is the app behind a proxy that is tested. It gives the address that it serves.
func ServeBackend(t *testing.T, addr string) string {
	t.Helper()
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	app := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/echo":
			io.Copy(w, r.Body)
			return
		case "/slow":
			time.Sleep(300 * time.Millisecond)
		}
		io.WriteString(w, "hello\n")
	})}
	go app.Serve(ln)
	t.Cleanup(func() { app.Close() })
	return ln.Addr().String()
}
