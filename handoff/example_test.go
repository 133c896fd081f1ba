package handoff_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"

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

// The operator gives the sockets names: grace run --listen web=:8080 --listen admin=127.0.0.1:0 -- ./app
func ExampleNamed() {
	web, err := handoff.Named("web", "tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer web.Close()
	admin, err := handoff.Named("admin", "tcp", "127.0.0.1:0")
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
