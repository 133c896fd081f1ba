package cmd

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
)

func TestPatientWriterKeepsOrder(t *testing.T) {
	var out, want bytes.Buffer
	p := newDroppingWriter(&out)
	for i := range linesKept {
		fmt.Fprintf(p, "line %d\n", i)
		fmt.Fprintf(&want, "line %d\n", i)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if out.String() != want.String() {
		t.Errorf("wrote %q", out.String())
	}
}

// zerolog uses its buffer again as soon as Write has returned.
func TestPatientWriterCopies(t *testing.T) {
	reader, writer := io.Pipe()
	p := newDroppingWriter(writer)
	line := []byte("first\n")
	_, _ = p.Write(line)
	_, _ = p.Write(line)
	copy(line, "later\n")
	for range 2 {
		got := make([]byte, len(line))
		if _, err := io.ReadFull(reader, got); err != nil || string(got) != "first\n" {
			t.Errorf("wrote %q, error %v", got, err)
		}
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

var droppedLine = regexp.MustCompile(`^grace: (\d+) log lines were dropped$`)

// In the bubble a Write that waits for the reader is a deadlock, and one that waits for the time moves the clock.
func TestPatientWriterDropsWhatAStuckReaderLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reader, writer := io.Pipe()
		p := newDroppingWriter(writer)
		const excess = 500
		const written = linesKept + excess + 2
		begun := time.Now()
		for i := range linesKept + excess {
			if n, err := fmt.Fprintf(p, "line %d\n", i); n == 0 || err != nil {
				t.Fatalf("line %d: wrote %d bytes, error %v", i, n, err)
			}
		}
		if waited := time.Since(begun); waited != 0 {
			t.Errorf("writing waited for %s", waited)
		}
		arrived, counted := make(chan int), make(chan int)
		go func() {
			lines, dropped := countLines(t, reader)
			arrived <- lines
			counted <- dropped
		}()
		synctest.Wait() // the reader has taken all that was kept
		_, _ = p.Write([]byte("last but one\n"))
		_, _ = p.Write([]byte("last\n"))
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		_ = writer.Close()
		lines, dropped := <-arrived, <-counted
		if dropped < 1 || lines+dropped != written {
			t.Errorf("%d lines arrived and %d were said to be dropped, of %d", lines, dropped, written)
		}
	})
}

func countLines(t *testing.T, r io.Reader) (lines, dropped int) {
	for all := bufio.NewScanner(r); all.Scan(); {
		if m := droppedLine.FindStringSubmatch(all.Text()); m != nil {
			n, err := strconv.Atoi(m[1])
			if err != nil {
				t.Error(err)
			}
			dropped += n
			continue
		}
		lines++
	}
	return lines, dropped
}

func TestPatientWriterDoesNotWaitForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reader, writer := io.Pipe()
		p := newDroppingWriter(writer)
		_, _ = p.Write([]byte("line\n"))
		if err := p.Close(); err == nil {
			t.Error("closed well, though nothing could be written")
		}
		_ = reader.Close() // lets the copy end
	})
}

type failingWriter struct{ writes int }

func (f *failingWriter) Write([]byte) (int, error) {
	f.writes++
	return 0, errors.New("gone")
}

func TestPatientWriterOutlivesABrokenOne(t *testing.T) {
	broken := &failingWriter{}
	p := newDroppingWriter(broken)
	for range 3 {
		if _, err := p.Write([]byte("line\n")); err != nil {
			t.Error(err)
		}
	}
	if err := p.Close(); err != nil || broken.writes != 3 {
		t.Errorf("close: %v; %d writes were tried, want 3", err, broken.writes)
	}
}

func TestLogFormatsAndLevels(t *testing.T) {
	for _, c := range []struct {
		format, level string
		threshold     zerolog.Level
		fails         bool
	}{
		{"auto", "info", zerolog.InfoLevel, false},
		{"json", "debug", zerolog.DebugLevel, false},
		{"text", "error", zerolog.ErrorLevel, false},
		{"xml", "info", 0, true},
		{"json", "loud", 0, true},
	} {
		t.Run(c.format+" "+c.level, func(t *testing.T) {
			log, closer, err := newLog(c.format, c.level)
			if (err != nil) != c.fails {
				t.Fatalf("error %v", err)
			}
			if err != nil {
				return
			}
			defer closer.Close()
			if log.GetLevel() != c.threshold {
				t.Errorf("level %v, want %v", log.GetLevel(), c.threshold)
			}
		})
	}
}

// A log that cannot be written is no reason to end otherwise than said.
func TestStderrThatIsGone(t *testing.T) {
	for name, run := range map[string]func(*testing.T, ...string) int{
		"closed":         statusWithoutStderr,
		"without reader": statusWithoutReader,
	} {
		t.Run(name, func(t *testing.T) {
			if status := run(t, "run", "--restart=never", "--", "sh", "-c", "exit 7"); status != 7 {
				t.Errorf("status %d, want the app's 7", status)
			}
			if status := run(t, "run", "--", "/nonexistent"); status != 127 {
				t.Errorf("status %d of a command that cannot be found, want 127", status)
			}
		})
	}
}

func statusWithoutStderr(t *testing.T, args ...string) int {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := grace()
	cmd.Path = "/bin/sh"
	cmd.Args = append([]string{"sh", "-c", `exec "$0" "$@" 2>&-`, self}, args...)
	return statusOf(t, cmd)
}

func statusWithoutReader(t *testing.T, args ...string) int {
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	_ = reader.Close()
	cmd := grace(args...)
	cmd.Stderr = writer
	return statusOf(t, cmd)
}
