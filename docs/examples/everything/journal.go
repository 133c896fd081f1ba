package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/gracerun/grace/drain/sse"
)

// journal is a file of lines that all generations write and read. A line's ID is the position in the
// file at which it ends. A table with a serial number works as well.
type journal struct {
	file  *os.File
	start string // where it ended when this process began
}

const (
	longest = 4 << 10               // bytes of a line
	atOnce  = 16 * longest          // bytes that are read for one client
	often   = 20 * time.Millisecond // how soon a line is seen
)

func openJournal(folder string) (*journal, error) {
	// Each write goes to the end of the file, even if other processes write too.
	f, err := os.OpenFile(filepath.Join(folder, "journal.txt"), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	j := &journal{f, strconv.FormatInt(end, 10)}
	return j, j.add(fmt.Sprintf("process %d begins at %s", os.Getpid(), time.Now().Format(time.RFC3339Nano)))
}

func (j *journal) Close() error { return j.file.Close() }

func (j *journal) add(entry string) error {
	if len(entry) >= longest {
		return fmt.Errorf("cannot add an entry of %d bytes: the limit is %d", len(entry), longest-1)
	}
	_, err := j.file.WriteString(strings.ReplaceAll(entry, "\n", " ") + "\n")
	return err
}

func (j *journal) post(w http.ResponseWriter, r *http.Request) {
	entry, ok := read(w, r)
	if !ok {
		return
	}
	if err := j.add(string(entry)); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

// after is the From of a Broadcast: it reads the events for clients whose last event the Broadcast does not know.
func (j *journal) after(_ context.Context, lastID string) ([]sse.Event, error) {
	place, err := strconv.ParseUint(lastID, 10, 63)
	if err != nil {
		return nil, fmt.Errorf("not an ID of the journal: %q", lastID)
	}
	text, err := io.ReadAll(io.NewSectionReader(j.file, int64(place), atOnce))
	if err != nil {
		return nil, err
	}
	var events []sse.Event
	for {
		line, rest, whole := bytes.Cut(text, []byte("\n"))
		if !whole {
			return events, nil
		}
		place += uint64(len(line) + 1)
		events = append(events, sse.Event{ID: strconv.FormatUint(place, 10), Data: string(line)})
		text = rest
	}
}

// follow publishes the lines of all generations, in the order of the file.
func (j *journal) follow(ctx context.Context, news *sse.Broadcast) error {
	soon := time.NewTicker(often)
	defer soon.Stop()
	for last := j.start; ; {
		events, err := j.after(ctx, last)
		if err != nil {
			return err
		}
		for _, e := range events {
			if err := news.Publish(e); err != nil {
				return err
			}
			last = e.ID
		}
		select {
		case <-soon.C:
		case <-ctx.Done():
			return nil
		}
	}
}
