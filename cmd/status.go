package cmd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/gracerun/grace/cmd/fold"
	"github.com/gracerun/grace/supervisor/control"
	"github.com/spf13/cobra"
)

const statusLong = `status shows generations and their instances, sockets, and the last upgrades.
QUEUE is the number of connections that wait to be accepted, CONNECTIONS of those that are
accepted and open, REQUESTS of the requests in flight that the app reports. MEMORY and CPU
are those of an instance and its child processes. Values that cannot be read are left out.
The line farewell says whether clients are asked to close kept-alive connections before the
app closes them. While they do so, the table FAREWELL has their connections: LEFT are closed,
BUSY were used in the last second, SILENT were not. The clients' data waits on HELD ones. KEPT
ones were closed by the app and wait for a last request. NOT ASKED are in no plain TCP.
` + whichGrace + `
Exit status:
  0  the status was printed
  1  grace does not answer
  2  the command line is wrong
  4  no grace process has this name, or NAME is missing and several run`

const statusExample = `  grace status
  grace status web --watch
  grace status web --json | jq .current`

const (
	statusTimeLimit = 10 * time.Second
	watchInterval   = time.Second
	// closeInterval is for what is over in about a second.
	closeInterval = 200 * time.Millisecond
)

func newStatus() *cobra.Command {
	var asJSON, watch bool
	c := &cobra.Command{
		Use:               "status [NAME]",
		Short:             "Show generations, instances, sockets and upgrades",
		Long:              statusLong,
		Example:           statusExample,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: completeNames,
		RunE: func(_ *cobra.Command, args []string) error {
			found, err := find(args)
			if err != nil {
				return err
			}
			v := &view{client: control.NewClient(found.Path), write: printForTerminal}
			defer v.client.Close()
			if asJSON {
				v.write = encodeStatus
			}
			if watch {
				return v.watch()
			}
			return v.once()
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print the status as JSON, as /v1/status does")
	c.Flags().BoolVar(&watch, "watch", false, "show the status again and again until ^C: each second, and five times a second while an upgrade or a stop is in progress")
	return c
}

// view shows the status of a grace process.
type view struct {
	client *control.Client
	write  func(io.Writer, control.Status) error
}

func (v *view) once() error {
	text, _, err := v.look(context.Background())
	if err != nil {
		return tell(statusFailed, "%v", err)
	}
	return show(text)
}

func show(text string) error {
	if _, err := io.WriteString(os.Stdout, text); err != nil {
		return fmt.Errorf("cannot print the status: %w", err)
	}
	return nil
}

// look also gives the time until something may have changed.
func (v *view) look(ctx context.Context) (text string, next time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, statusTimeLimit)
	defer cancel()
	s, err := v.client.Status(ctx)
	if err != nil {
		return "", 0, err
	}
	var written strings.Builder
	err = v.write(&written, s)
	return written.String(), intervalOf(s), err
}

func intervalOf(s control.Status) time.Duration {
	soon := time.Now().Add(statusTimeLimit)
	goes := func(g control.Generation) bool { return g.Until != nil && g.Until.Before(soon) }
	if s.State == "upgrading" || slices.ContainsFunc(s.Generations, goes) {
		return closeInterval
	}
	return watchInterval
}

// watch ends with SIGINT or SIGTERM, or when the status cannot be read any more.
func (v *view) watch() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	screen := newScreen()
	for {
		began := time.Now()
		text, next, err := v.look(ctx)
		switch {
		case ctx.Err() != nil:
			return screen.close()
		case err != nil:
			return tell(statusFailed, "%v", errors.Join(err, screen.close()))
		}
		if err := screen.show(text); err != nil {
			return err
		}
		select {
		case <-time.After(next - time.Since(began)):
		case <-ctx.Done():
			return screen.close()
		}
	}
}

func printForTerminal(w io.Writer, s control.Status) error {
	return printStatus(w, s, fold.Columns(os.Stdout))
}

func encodeStatus(w io.Writer, s control.Status) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	return encoder.Encode(s)
}
