package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"github.com/gracerun/grace/cmd/load"
)

// traffic is a light mixed load. A process of its own sends it, because the bench itself plays the ideal overlap, and would
// have to share its scheduler with the clients where grace does not.
type traffic struct {
	cmd    *exec.Cmd
	end    io.Closer
	result io.Reader
}

var lightLoad = load.Config{
	Clients:  map[load.Kind]int{load.NewConnection: 2, load.KeepAliveGet: 2},
	ThinkMax: 8 * time.Millisecond,
}

func startTraffic(address string) *traffic {
	t := &traffic{cmd: exec.Command(must(os.Executable()), "traffic", address)}
	t.cmd.Stderr = os.Stderr
	t.end, t.result = must(t.cmd.StdinPipe()), must(t.cmd.StdoutPipe())
	check(t.cmd.Start())
	return t
}

// stop says how many requests there were, and how many of them failed.
func (t *traffic) stop() (requests, failed int) {
	check(t.end.Close())
	_, err := fmt.Fscan(t.result, &requests, &failed)
	check(errors.Join(err, t.cmd.Wait()))
	return requests, failed
}

// sendTraffic is the process that sends until its input ends.
func sendTraffic(address string) error {
	cfg := lightLoad
	cfg.Addr = address
	l, err := load.Start(context.Background(), cfg)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	tally := l.Stop()
	if tally.Failures() > 0 {
		fmt.Fprintln(os.Stderr, tally)
	}
	fmt.Println(tally.Requests(), tally.Failures())
	return err
}
