package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/cloudflare/tableflip"
)

// readyTime is what a new process gets until it serves.
const readyTime = 3 * time.Second

// serveFlipped replaces itself on SIGHUP, as tableflip's documentation shows it.
func (o options) serveFlipped(v version, told context.Context) error {
	up, err := tableflip.New(tableflip.Options{UpgradeTimeout: readyTime})
	if err != nil {
		return err
	}
	hangUps := make(chan os.Signal, 1)
	signal.Notify(hangUps, syscall.SIGHUP)
	go upgradeOn(hangUps, up)
	ln, err := up.Listen("tcp", o.addr)
	if err != nil {
		return err
	}
	ctx, replaced := context.WithCancel(told)
	go func() {
		<-up.Exit()
		if v.fault != "hang" {
			replaced()
		}
	}()
	return o.end(ctx, server(v), ln, up.Ready)
}

func upgradeOn(hangUps <-chan os.Signal, up *tableflip.Upgrader) {
	for range hangUps {
		if err := up.Upgrade(); err != nil {
			fmt.Fprintln(os.Stderr, "app: cannot upgrade:", err)
		}
	}
}
