package handoff_test

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"sync/atomic"
	"time"

	"github.com/gracerun/grace/handoff"
)

// A server that can be replaced: it takes the socket from its supervisor, or binds one if there is none.
func Example() {
	ln, err := handoff.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "hello")
	}))
	srv.Listener.Close()
	srv.Listener = ln
	srv.Start()
	defer srv.Close()
	if err := handoff.Ready(); err != nil {
		fmt.Println(err)
		return
	}

	resp, err := http.Get("http://" + ln.Addr().String())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	fmt.Printf("%s\n", body)
	// Output: hello
}

// Whoever starts the program says where it listens, and leaves it a socket or not:
//
//	./app -addr :8080
//	grace run --listen :8080 -- ./app -addr :8080
//	grace run --listen :8080 -- ./app -network fd -addr {fd}
func ExampleListen() {
	flags := flag.NewFlagSet("app", flag.ExitOnError)
	network := flags.String("network", "tcp", "tcp, unix, or fd for an inherited socket")
	addr := flags.String("addr", ":8080", "an address, a path, or a descriptor's number")
	flags.Parse([]string{"-addr", "127.0.0.1:0"})
	ln, err := handoff.Listen(*network, *addr)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer ln.Close()
	fmt.Println(ln.Addr().Network())
	// Output: tcp
}

// The operator gives the sockets names: grace run --listen web=:8080 --listen admin=127.0.0.1:0 -- ./app
func ExampleListenNamed() {
	web, err := handoff.ListenNamed("web", "tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer web.Close()
	admin, err := handoff.ListenNamed("admin", "tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer admin.Close()
	fmt.Println(web.Addr().Network(), admin.Addr().Network())
	// Output: tcp tcp
}

func ExampleListenPacket() {
	conn, err := handoff.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()
	client, err := net.Dial("udp", conn.LocalAddr().String())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()
	fmt.Fprint(client, "ping")
	packet := make([]byte, 100)
	n, _, err := conn.ReadFrom(packet)
	fmt.Println(string(packet[:n]), err)
	// Output: ping <nil>
}

// A name leaves the address to the operator: grace run --listen dns=udp://:53 -- ./app
func ExampleListenPacketNamed() {
	conn, err := handoff.ListenPacketNamed("dns", "udp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()
	fmt.Println(conn.LocalAddr().Network())
	// Output: udp
}

// Ready comes last: with it the old generation is told to end.
func ExampleReady() {
	ln, err := handoff.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	srv := &http.Server{Handler: http.NotFoundHandler()}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	if err := handoff.Ready(); err != nil {
		fmt.Println(err)
	}
	srv.Close()
	fmt.Println(<-served)
	// Output: http: Server closed
}

// A program that ends of its own accord says so before, and how far it is; package drain does both.
func ExampleStopping() {
	if err := handoff.Stopping(); err != nil {
		fmt.Println(err)
	}
	for jobs := 3; jobs > 0; jobs-- {
		if err := handoff.InFlight(jobs); err != nil {
			fmt.Println(err)
		}
		fmt.Println(jobs, "to go")
	}
	// Output:
	// 3 to go
	// 2 to go
	// 1 to go
}

// The count appears in grace's log while the program drains.
func ExampleInFlight() {
	var inFlight atomic.Int64
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		inFlight.Add(1)
		defer inFlight.Add(-1)
		fmt.Println(handoff.InFlight(int(inFlight.Load())))
	})
	handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
	// Output: <nil>
}

// A program gives up a little before it would be killed, and can say what it gives up.
func ExampleKillAfter() {
	limit := 20 * time.Second
	if allowed, told := handoff.KillAfter(); told {
		limit = min(limit, allowed*9/10)
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	fmt.Println(new(http.Server).Shutdown(ctx))
	// Output: <nil>
}

// A program that has much to load tells how far it is; grace shows the text, and waits for Ready.
func ExampleStatus() {
	for _, step := range []string{"reading the index", "warming the cache"} {
		if err := handoff.Status(step); err != nil {
			fmt.Println(err)
			return
		}
	}
	fmt.Println(handoff.Ready())
	// Output: <nil>
}

// A server that the program starts for itself must not take the variables for its own.
func ExampleCleanEnv() {
	helper := exec.Command("env")
	helper.Env = handoff.CleanEnv([]string{"LANG=C", "LISTEN_FDS=1", "NOTIFY_SOCKET=/run/notify", "GRACE_GENERATION=3"})
	out, err := helper.Output()
	fmt.Print(string(out), err)
	// Output:
	// LANG=C
	// <nil>
}
