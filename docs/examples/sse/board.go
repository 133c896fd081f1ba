package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/gracerun/grace/drain/sse"
)

// board is a file of lines that several processes write and read.
type board struct {
	file  *os.File
	start string // where it ended when this process began
}

const (
	longest = 4 << 10               // bytes of a line
	atOnce  = 16 * longest          // bytes that are read for one client
	often   = 20 * time.Millisecond // how soon a line is seen
)

func openBoard(path string) (*board, error) {
	// Each write goes to the end of the file, even if other processes write too.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	return &board{f, strconv.FormatInt(end, 10)}, nil
}

func (b *board) post(w http.ResponseWriter, r *http.Request) {
	line, err := io.ReadAll(http.MaxBytesReader(w, r.Body, longest-1))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	line = append(bytes.ReplaceAll(line, []byte("\n"), []byte(" ")), '\n')
	if _, err := b.file.Write(line); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

// after is the From of a Broadcast: it reads the events for clients whose last event the Broadcast does not know.
func (b *board) after(_ context.Context, lastID string) ([]sse.Event, error) {
	place, err := strconv.ParseUint(lastID, 10, 63)
	if err != nil {
		return nil, fmt.Errorf("not an ID of the board: %q", lastID)
	}
	text, err := io.ReadAll(io.NewSectionReader(b.file, int64(place), atOnce))
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

// follow publishes the lines of all processes, in the order of the file.
func (b *board) follow(ctx context.Context, news *sse.Broadcast) error {
	soon := time.NewTicker(often)
	defer soon.Stop()
	last := b.start
	for {
		events, err := b.after(ctx, last)
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
