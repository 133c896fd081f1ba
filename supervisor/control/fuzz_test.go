package control

import (
	"io"
	"slices"
	"strings"
	"testing"
)

// Whatever comes, the connection ends, the backend is asked for nothing that makes no
// sense, and others are answered.
func FuzzServer(f *testing.F) {
	for _, seed := range []string{
		"",
		"GET /v1/status HTTP/1.1\r\nHost: grace\r\n\r\nGET /v1/status HTTP/1.1\r\nHost: grace\r\n\r\n",
		"POST /v1/upgrade HTTP/1.1\r\nHost: grace\r\nContent-Length: 19\r\n\r\n{\"command\":[\"./a\"]}",
		"POST /v1/upgrade HTTP/1.1\r\nHost: grace\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
		"POST /v1/stop HTTP/1.1\r\nHost: grace\r\nContent-Length: 12\r\n\r\n{\"now\":true}POST /v1/rollback HTTP/1.0\r\n\r\n",
		"POST /v1/stop HTTP/1.1\r\nHost: grace\r\nContent-Length: 99\r\n\r\n{\"now\":nul",
		"POST /v1/upgrade HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\nnull",
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"GET http://[::1/%2e HTTP/1.1\r\nHost: \r\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	b := &backend{}
	path, _ := started(f, b, defaultLimits)
	c := client(f, path)
	f.Fuzz(func(t *testing.T, sent []byte) {
		conn := connect(t, path)
		_, _ = conn.Write(sent) // it may end before it has read all
		_ = conn.CloseWrite()
		_, _ = io.Copy(io.Discard, conn)
		conn.Close()
		for _, r := range b.take() {
			checkRequest(t, r)
		}
		if _, err := c.Status(t.Context()); err != nil {
			t.Fatalf("another client: %v", err)
		}
	})
}

func (b *backend) take() []Request {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	taken := b.asked
	b.asked = nil
	return taken
}

func checkRequest(t *testing.T, r Request) {
	known := slices.Contains([]Operation{Upgrade, Rollback, Stop, Reexec}, r.Do)
	meant := (r.Command == nil || r.Do == Upgrade) && (!r.Now || r.Do == Stop)
	runs := r.Command == nil || len(r.Command) > 0 && r.Command[0] != "" && !strings.ContainsRune(strings.Join(r.Command, ""), 0)
	if !known || !meant || !runs {
		t.Errorf("the backend was asked for %+v", r)
	}
}
