//go:build linux

package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"testing"

	"github.com/gracerun/grace/docs/examples/internal/supervised"
	"github.com/gracerun/grace/handoff"
	"github.com/gracerun/grace/internal/freeport"
)

const (
	plainVariable = "PLAIN_SHUTDOWN"
	plainUpgrades = 5

	mostPlainUpgrades = 100 // until the first loss, which is a matter of chance
)

// servePlainly is what the documentation of http.Server.Shutdown shows, with a socket of grace's.
func servePlainly(addr string) (status int) {
	if err := runPlainly(addr); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func runPlainly(addr string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	ln, err := handoff.Listen("tcp", addr)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /echo", echo)
	srv := &http.Server{Handler: signed(mux)}
	go srv.Serve(ln)
	if err := handoff.Ready(); err != nil {
		return err
	}
	<-ctx.Done()
	return srv.Shutdown(context.Background())
}

// plainFigures are those of the same clients and a program with plain Shutdown, where nobody asks clients to leave.
func plainFigures(t *testing.T) figures {
	t.Helper()
	t.Setenv(plainVariable, "1")
	addr := freeport.Address(t)
	app, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	g := supervised.Grace(t, "--farewell", "0s", "--listen", addr, "--", app, addr)
	clients := startKeepAlive(t, addr)
	clients.settle(t)
	for n := 0; n < plainUpgrades || clients.failures() == 0 && n < mostPlainUpgrades; n++ {
		g.UpgradeNext()
		g.AwaitDrained()
		clients.settle(t)
	}
	seen := clients.stop()
	g.Stop()
	return seen
}
