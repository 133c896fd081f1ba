package cmd

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/user"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gracerun/grace/cmd/fold"
	"github.com/gracerun/grace/supervisor/control"
	"github.com/spf13/cobra"
)

const listLong = `list shows the grace processes that you may control: your own, or as root those of all
users. It looks for their control sockets in $RUNTIME_DIRECTORY, $XDG_RUNTIME_DIR/grace,
/run/grace, /run/grace/*, /run/user/*/grace and /tmp/grace-UID.`

const listTimeLimit = 2 * time.Second

func newList() *cobra.Command {
	asJSON := false
	c := &cobra.Command{
		Use:     "list",
		Short:   "Show the grace processes that run here",
		Long:    listLong,
		Example: "  grace list\n  grace list --json | jq -r '.[].name'",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			write := func(w io.Writer, all []listed) error { return printList(w, all, fold.Columns(os.Stdout)) }
			if asJSON {
				write = encodeList
			}
			if err := write(os.Stdout, askAll(control.List())); err != nil {
				return fmt.Errorf("cannot print the list: %w", err)
			}
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print the list as JSON, with the status of each")
	return c
}

// listed is a grace process and its status.
type listed struct {
	Name   string          `json:"name"`
	Path   string          `json:"path"`
	UID    int             `json:"uid"`
	Status *control.Status `json:"status,omitempty"`
	Error  string          `json:"error,omitempty"`
}

// askAll queries all at the same time, so that one that hangs does not delay the others.
func askAll(found []control.Found) []listed {
	all := make([]listed, len(found))
	var asked sync.WaitGroup
	for i, f := range found {
		asked.Go(func() { all[i] = askOne(f) })
	}
	asked.Wait()
	return all
}

func askOne(f control.Found) listed {
	l := listed{Name: f.Name, Path: f.Path, UID: f.UID}
	ctx, cancel := context.WithTimeout(context.Background(), listTimeLimit)
	defer cancel()
	client := control.NewClient(f.Path)
	defer client.Close()
	s, err := client.Status(ctx)
	if err != nil {
		l.Error = err.Error()
		return l
	}
	l.Status = &s
	return l
}

func encodeList(w io.Writer, all []listed) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(all)
}

func printList(w io.Writer, all []listed, width int) error {
	t := newTable("NAME", "STATE", "GENERATION", "PID", "UP", "USER", "SOCKET")
	for _, l := range all {
		if l.Status == nil {
			t.add(l.Name, "does not answer", "", "", "", userName(l.UID), l.Path)
			continue
		}
		t.add(l.Name, l.Status.State, positive(l.Status.Current), positive(l.Status.PID), since(l.Status.Started), userName(l.UID), l.Path)
	}
	var text strings.Builder
	t.print(&text, width)
	_, err := io.WriteString(w, text.String())
	return err
}

func userName(uid int) string {
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		return u.Username
	}
	return strconv.Itoa(uid)
}
