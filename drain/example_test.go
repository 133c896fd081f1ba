package drain_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"

	"github.com/gracerun/grace/drain"
	"github.com/gracerun/grace/handoff"
)

// The handler ends the server here, to show the drain; mostly a signal does.
func ExampleServe() {
	ln, err := handoff.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		stop()
		<-drain.Draining(r.Context())
		io.WriteString(w, "answered while draining")
	})}
	client := &http.Client{}
	var answered sync.WaitGroup
	answered.Go(func() {
		defer client.CloseIdleConnections()
		resp, err := client.Get("http://" + ln.Addr().String())
		if err != nil {
			fmt.Println(err)
			return
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		fmt.Printf("%s\n", body)
	})
	if err := drain.Serve(srv, ln, drain.Context(ctx)); err != nil {
		fmt.Println(err)
		return
	}
	answered.Wait()
	fmt.Println("drained")
	// Output:
	// answered while draining
	// drained
}

func ExampleDraining() {
	messages := make(chan string)
	http.HandleFunc("/events", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for {
			select {
			case message := <-messages:
				fmt.Fprintf(w, "data: %s\n\n", message)
				http.NewResponseController(w).Flush()
			case <-drain.Draining(r.Context()):
				fmt.Fprint(w, "retry: 100\n\n")
				return
			case <-r.Context().Done():
				return
			}
		}
	})
}

func ExampleDrain() {
	d := drain.New()
	jobs := make(chan string, 10)
	d.On(drain.Resources, "database", func(context.Context) error {
		fmt.Println("database closed")
		return nil
	})
	d.Go("mailer", func(ctx context.Context) error {
		for {
			select {
			case job := <-jobs:
				fmt.Println("mailed", job)
			case <-ctx.Done():
				return nil
			}
		}
	})
	d.On(drain.Requests, "bot", func(context.Context) error {
		fmt.Println("bot has answered")
		return nil
	})
	d.Drain() // mostly a signal does
	if err := d.Wait(); err != nil {
		fmt.Println(err)
	}
	// Output:
	// bot has answered
	// database closed
}

// A server that is no http.Server: whoever has connected is greeted, even if the drain has begun by then.
func ExampleListener() {
	ln, err := handoff.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	client, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()

	d := drain.New()
	l := drain.NewListener(ln)
	greet := func(conn net.Conn) {
		fmt.Fprintln(conn, "hello")
		conn.Close()
	}
	d.On(drain.Accepting, "greeter", l.Stop)
	d.Go("greeter", func(context.Context) error {
		defer l.Close()
		for {
			conn, err := l.Accept()
			if errors.Is(err, drain.ErrDraining) {
				return nil
			}
			if err != nil {
				return err
			}
			d.Go("greeting", func(context.Context) error { greet(conn); return nil })
		}
	})
	d.Drain() // mostly a signal does
	if err := d.Wait(); err != nil {
		fmt.Println(err)
	}
	io.Copy(os.Stdout, client)
	// Output:
	// hello
}
