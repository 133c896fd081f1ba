// Conversations is a server of protocols that take long or are not HTTP/1, and knows nothing of grace. Its arguments say
// what it serves where, as in echo=127.0.0.1:7 or tls=fd:3. What it has sent on a connection is in a file of the folder SENT,
// named by the port of the client, when the connection has ended.
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

func main() {
	ending, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var servers sync.WaitGroup
	for _, argument := range os.Args[1:] {
		kind, at, _ := strings.Cut(argument, "=")
		listener, err := listen(at)
		if err != nil {
			log.Fatal(err)
		}
		servers.Go(func() { serve(ending, kind, recording{listener}) })
	}
	<-ending.Done()
	fmt.Println("told to stop, and finishes its conversations")
	servers.Wait()
}

func listen(at string) (net.Listener, error) {
	number, passed := strings.CutPrefix(at, "fd:")
	if !passed {
		return net.Listen("tcp", at)
	}
	fd, err := strconv.Atoi(number)
	if err != nil {
		return nil, err
	}
	return net.FileListener(os.NewFile(uintptr(fd), at))
}

// serve returns when all conversations have ended after the stop signal.
func serve(ending context.Context, kind string, listener net.Listener) {
	if kind == "echo" {
		go serveEcho(ending, listener)
		<-ending.Done()
		connections.Wait()
		return
	}
	shutdown := make(chan struct{})
	server := &http.Server{Handler: handler(ending, shutdown), Protocols: new(http.Protocols)}
	server.RegisterOnShutdown(func() { close(shutdown) })
	server.Protocols.SetHTTP1(kind != "grpc")
	server.Protocols.SetUnencryptedHTTP2(kind == "grpc")
	if kind == "tls" {
		listener = tls.NewListener(listener, &tls.Config{Certificates: []tls.Certificate{certificate()}})
	}
	go func() { _ = server.Serve(listener) }()
	<-ending.Done()
	if kind == "web" {
		_ = server.Shutdown(context.Background())
	}
	connections.Wait()
}

func serveEcho(ending context.Context, listener net.Listener) {
	context.AfterFunc(ending, func() { listener.Close() })
	for {
		c, err := listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			_, _ = io.Copy(c, c)
		}()
	}
}

func handler(ending context.Context, shutdown <-chan struct{}) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "hello") })
	mux.HandleFunc("/events", func(w http.ResponseWriter, r *http.Request) { events(ending, w) })
	mux.HandleFunc("/poll", func(w http.ResponseWriter, r *http.Request) {
		<-shutdown
		fmt.Fprintln(w, "something has happened")
	})
	mux.HandleFunc("/upload", func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		fmt.Fprintln(w, n, err)
	})
	mux.HandleFunc("/socket", socket)
	mux.HandleFunc("/service/Method", call)
	return mux
}

// events go on until the stop signal, and say then that they end.
func events(ending context.Context, w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/event-stream")
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for n := 1; ending.Err() == nil; n++ {
		fmt.Fprintf(w, "id: %d\ndata: tick\n\n", n)
		w.(http.Flusher).Flush()
		<-tick.C
	}
	fmt.Fprint(w, "data: the end\n\n")
}

// socket is a WebSocket as far as it can be told by others: after the handshake bytes go to and fro.
func socket(w http.ResponseWriter, r *http.Request) {
	c, both, err := w.(http.Hijacker).Hijack()
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	_, _ = io.Copy(c, both)
}

// call answers as a gRPC server does.
func call(w http.ResponseWriter, r *http.Request) {
	message, _ := io.ReadAll(r.Body)
	w.Header().Set("Content-Type", "application/grpc")
	w.Header().Set("Trailer", "Grpc-Status")
	_, _ = w.Write(message)
	w.Header().Set("Grpc-Status", "0")
}

func certificate() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		log.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// connections are those that were accepted.
var connections sync.WaitGroup

// recording notes what is sent on the connections of a listener.
type recording struct{ net.Listener }

func (l recording) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	connections.Add(1)
	return &recorded{Conn: c}, nil
}

type recorded struct {
	net.Conn
	mu    sync.Mutex
	sent  []byte
	ended sync.Once
}

func (c *recorded) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, err := c.Conn.Write(p)
	c.sent = append(c.sent, p[:n]...)
	return n, err
}

// Close has the file complete when it has its name.
func (c *recorded) Close() error {
	c.ended.Do(func() {
		defer connections.Done()
		c.mu.Lock()
		defer c.mu.Unlock()
		_, port, _ := net.SplitHostPort(c.RemoteAddr().String())
		path := filepath.Join(os.Getenv("SENT"), port)
		err := os.WriteFile(path+".part", c.sent, 0o600)
		if err == nil {
			err = os.Rename(path+".part", path)
		}
		if err != nil {
			log.Print(err)
		}
	})
	return c.Conn.Close()
}
