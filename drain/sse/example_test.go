package sse_test

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"time"

	"github.com/gracerun/grace/drain"
	"github.com/gracerun/grace/drain/sse"
)

func Example() {
	d := drain.New(drain.Log(slog.New(slog.DiscardHandler)))
	srv := httptest.NewUnstartedServer(sse.Handler(func(s *sse.Stream, r *http.Request) error {
		if err := s.Send(sse.Event{ID: "1", Data: "hello"}); err != nil {
			return err
		}
		<-r.Context().Done()
		fmt.Println(context.Cause(r.Context()))
		return nil
	}, sse.Retry(50*time.Millisecond, 50*time.Millisecond)))
	srv.Config.BaseContext = func(net.Listener) context.Context { // drain.Serve does so itself
		return d.WithDraining(context.Background())
	}
	srv.Start()
	defer srv.Close()
	resp, err := http.Get(srv.URL)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		switch line := lines.Text(); {
		case line == "data: hello":
			fmt.Println(line)
			d.Drain() // mostly a signal does
		case line == "retry: 50":
			fmt.Println(line)
		}
	}
	fmt.Println("the stream has ended")
	// Output:
	// data: hello
	// the drain has begun
	// retry: 50
	// the stream has ended
}

func ExampleHandler() {
	jobs := map[string]chan int{}
	// What refuses a request stands in front, since the response of a stream has begun when its function is called.
	http.HandleFunc("/jobs/{id}/progress", func(w http.ResponseWriter, r *http.Request) {
		progress, ok := jobs[r.PathValue("id")]
		if !ok {
			http.NotFound(w, r)
			return
		}
		sse.Handler(func(s *sse.Stream, _ *http.Request) error {
			for percent := range progress {
				if err := s.Send(sse.Event{Data: strconv.Itoa(percent)}); err != nil {
					return err
				}
			}
			return s.Send(sse.Event{Name: "done"}) // the page closes its EventSource
		}, sse.Finish()).ServeHTTP(w, r)
	})
}

func ExampleBroadcast() {
	news := &sse.Broadcast{Lost: sse.Event{Name: "reload"}}
	http.Handle("GET /news", news)
	http.HandleFunc("POST /news", func(w http.ResponseWriter, r *http.Request) {
		if err := news.Publish(sse.Event{Data: r.FormValue("text")}); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
		}
	})
}

// The store is a table in most programs, and follow a subscription to its changes.
func ExampleBroadcast_from() {
	store := []string{"one", "two", "three"}
	since := func(_ context.Context, lastID string) (events []sse.Event, err error) {
		last, err := strconv.Atoi(lastID)
		if err != nil || last < 0 || last > len(store) {
			return nil, fmt.Errorf("the client's last ID is %q", lastID)
		}
		for n, data := range store[last:] {
			events = append(events, sse.Event{ID: strconv.Itoa(last + n + 1), Data: data})
		}
		return events, nil
	}
	news := &sse.Broadcast{From: since, Start: strconv.Itoa(len(store))} // this process has published nothing yet
	srv := httptest.NewServer(news)
	defer srv.Close()
	r, err := http.NewRequest(http.MethodGet, srv.URL, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	r.Header.Set("Last-Event-ID", "1") // from another process
	resp, err := srv.Client().Do(r)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		switch line := lines.Text(); {
		case strings.HasPrefix(line, "id: "):
			fmt.Print(line, ", ")
		case strings.HasPrefix(line, "data: "):
			fmt.Println(line)
			if line == "data: three" {
				return
			}
		}
	}
	// Output:
	// id: 2, data: two
	// id: 3, data: three
}
