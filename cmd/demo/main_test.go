package demo

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/gracerun/grace/internal/gracelog"
)

// TestMain lets the test binary be the `grace run` that a demo starts: one that acts by the variable behaviour.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "run" {
		pretendGrace(os.Getenv(behaviour))
		os.Exit(0)
	}
	os.Exit(m.Run())
}

const behaviour = "DEMO_TEST_GRACE"

// pretendGrace serves by itself and only logs what grace would: a generation is a number in its responses.
func pretendGrace(behaviour string) {
	if !slices.Contains(os.Args, "--name") {
		panic("the demo takes the name of the working directory from a server")
	}
	if behaviour == "ends at start" {
		say(gracelog.Entry{Level: "error", Message: "first generation failed", Why: "no luck"})
		os.Exit(1)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	signals := make(chan os.Signal, 10)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGTERM)
	var generation atomic.Int64
	generation.Store(1)
	go http.Serve(ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := strconv.FormatInt(generation.Load(), 10)
		if behaviour == "busy" {
			w.Header().Set("X-Generation", n)
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		Handler(n).ServeHTTP(w, r)
	}))
	say(gracelog.Entry{Message: "listening", Address: ln.Addr().String()})
	say(gracelog.Entry{Message: "generation ready", Generation: 1})
	for sig := range signals {
		if sig == syscall.SIGTERM {
			return
		}
		pretendUpgrade(behaviour, &generation)
	}
}

func pretendUpgrade(behaviour string, generation *atomic.Int64) {
	switch behaviour {
	case "ends at an upgrade":
		fmt.Fprintln(os.Stderr, "panic: out of luck")
		os.Exit(7)
	case "fails upgrades":
		say(gracelog.Entry{Level: "error", Message: "upgrade failed, generation 1 still serves", Why: "no luck"})
		return
	case "refuses upgrades":
		say(gracelog.Entry{Level: "warn", Message: "upgrade refused", Why: "no luck"})
		return
	}
	n := int(generation.Add(1))
	say(gracelog.Entry{Message: "generation ready", Generation: n})
	say(gracelog.Entry{Message: "generation ended", Generation: n - 1})
}

func say(e gracelog.Entry) {
	line, _ := json.Marshal(e)
	fmt.Fprintf(os.Stderr, "%s\n", line)
}
