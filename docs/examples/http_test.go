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
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What the requests use is closed after them.
func TestStoreIsClosedLast(t *testing.T) {
	addr, flags := example{name: "http", admin: true}.flags(t)
	p := start(t, filepath.Join(binaries, "http"), flags...)
	conn := dial(t, addr)
	fmt.Fprint(conn, "GET /slow HTTP/1.1\r\nHost: client\r\n\r\n")
	awaitInFlight(t, flags)
	p.signal(syscall.SIGTERM)
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Errorf("the slow request got %v, %v", response, err)
	}
	conn.Close()
	p.awaitText("the store is closed")
	p.endsWell()
}

// awaitInFlight asks the admin server until one request is in the public one.
func awaitInFlight(t *testing.T, flags []string) {
	t.Helper()
	for deadline := time.Now().Add(patience); !strings.HasPrefix(stats(flags[3]), "1 in flight"); {
		if time.Now().After(deadline) {
			t.Fatal("no request is in flight")
		}
		time.Sleep(time.Millisecond)
	}
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
	command := append([]string{"--", filepath.Join(binaries, "http"), "-cert", cert, "-key", key}, flags...)
	p := grace(t, append(listens(flags), command...)...)
	p.ready(1)
	draining := func(l line) bool { return strings.Contains(l.Text, "start draining (1 in flight)") }
	spans(t, client, flags, func() {
		p.signal(syscall.SIGHUP)
		p.ready(2)
		p.await("the drain of the first generation", draining)
	})
	spans(t, client, flags, func() {
		p.signal(syscall.SIGTERM)
		p.await("the drain of the second generation", func(line) bool {
			return len(slices.DeleteFunc(p.output(), func(l line) bool { return !draining(l) })) == 2
		})
	})
	p.endsWell()
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
	dir := t.TempDir()
	write := func(name, kind string, bytes []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: bytes}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return s.Client(), write("cert.pem", "CERTIFICATE", s.Certificate().Raw), write("key.pem", "PRIVATE KEY", private)
}
