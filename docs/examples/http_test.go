//go:build linux

package examples

import (
	"bufio"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"

	"github.com/gracerun/grace/docs/examples/internal/supervised"
	"github.com/gracerun/grace/test/harness"
)

// What the requests use is closed after them.
func TestStoreIsClosedLast(t *testing.T) {
	addr, flags := example{name: "http", admin: true}.flags(t)
	p := supervised.Start(t, harness.Program("http"), flags...)
	conn := dial(t, addr)
	fmt.Fprint(conn, "GET /slow HTTP/1.1\r\nHost: client\r\n\r\n")
	awaitInFlight(t, flags)
	p.Signal(syscall.SIGTERM)
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Errorf("the slow request got %v, %v", response, err)
	}
	conn.Close()
	p.AwaitText("the store is closed")
	p.Ends(0)
}

// awaitInFlight asks the admin server until one request is in the public one.
func awaitInFlight(t *testing.T, flags []string) {
	t.Helper()
	harness.Until(t, "one request is in flight", func() bool { return strings.HasPrefix(stats(flags[3]), "1 in flight") })
}

func stats(admin string) string {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get("http://" + admin + "/stats")
	if err != nil {
		return ""
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	return string(body)
}

// A request by TLS spans an upgrade, and a stop.
func TestHTTPS(t *testing.T) {
	client, cert, key := certified(t)
	client.Transport.(*http.Transport).DisableKeepAlives = true // the second request goes to the successor
	_, flags := example{name: "http", admin: true}.flags(t)
	command := append([]string{"--", harness.Program("http"), "-cert", cert, "-key", key}, flags...)
	g := supervised.Grace(t, append(listens(flags), command...)...)
	spans(t, client, flags, func() {
		g.UpgradeNext()
		awaitTimes(g, 1, "start draining (1 in flight)")
	})
	spans(t, client, flags, func() {
		g.Signal(syscall.SIGTERM)
		awaitTimes(g, 2, "start draining (1 in flight)")
	})
	g.Ends(0)
}

// awaitTimes waits for the nth line with a text.
func awaitTimes(g *harness.Grace, n int, text string) {
	g.AwaitTimes(fmt.Sprintf("%s (%d times)", text, n), n, func(e harness.Entry) bool { return strings.Contains(e.Text, text) })
}

// spans does something while a request waits in the server for the second half of its body.
func spans(t *testing.T, client *http.Client, flags []string, do func()) {
	t.Helper()
	body, rest := io.Pipe()
	answered := make(chan error, 1)
	go func() { answered <- echoed(client, flags[1], body) }()
	io.WriteString(rest, "first")
	awaitInFlight(t, flags)
	do()
	io.WriteString(rest, "last")
	rest.Close()
	if err := <-answered; err != nil {
		t.Error(err)
	}
}

func echoed(client *http.Client, addr string, body io.Reader) error {
	response, err := client.Post("https://"+addr+"/echo", "text/plain", body)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if string(text) != "firstlast" {
		return fmt.Errorf("%s with %q, %v", response.Status, text, err)
	}
	return nil
}

// certified gives the files for a server, and a client that trusts it.
func certified(t *testing.T) (client *http.Client, cert, key string) {
	t.Helper()
	s := httptest.NewTLSServer(nil)
	defer s.Close()
	private, err := x509.MarshalPKCS8PrivateKey(s.TLS.Certificates[0].PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	encode := func(kind string, bytes []byte) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: bytes})
	}
	cert = write(t, "cert.pem", encode("CERTIFICATE", s.Certificate().Raw))
	return s.Client(), cert, write(t, "key.pem", encode("PRIVATE KEY", private))
}
