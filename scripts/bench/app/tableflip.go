package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"

	"github.com/cloudflare/tableflip"
	"github.com/gracerun/grace/drain"
)

// serveFlipped replaces itself on SIGHUP, as tableflip's documentation shows it, and otherwise does what serve does.
func serveFlipped(addr string, server *http.Server, options ...drain.Option) error {
	up, err := tableflip.New(tableflip.Options{})
	if err != nil {
		return err
	}
	hangUps := make(chan os.Signal, 1)
	signal.Notify(hangUps, syscall.SIGHUP)
	go upgradeOn(hangUps, up)
	ln, err := up.Listen("tcp", addr)
	if err != nil {
		return err
	}
	return serveUntilExit(up, ln, server, options)
}

// upgradeOn waits for the end of the process before, because tableflip refuses an upgrade until it has seen that.
func upgradeOn(hangUps <-chan os.Signal, up *tableflip.Upgrader) {
	for range hangUps {
		if err := errors.Join(up.WaitForParent(context.Background()), up.Upgrade()); err != nil {
			fmt.Fprintln(os.Stderr, "app: cannot upgrade:", err)
		}
	}
}

func serveUntilExit(up *tableflip.Upgrader, ln net.Listener, server *http.Server, options []drain.Option) error {
	ctx, replaced := context.WithCancel(context.Background())
	go func() {
		<-up.Exit()
		replaced()
	}()
	d := drain.New(append(options, drain.Context(ctx))...)
	if err := d.Start(server, ln); err != nil {
		return err
	}
	if err := up.Ready(); err != nil {
		return err
	}
	return d.Wait()
}
