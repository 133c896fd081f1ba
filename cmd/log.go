package cmd

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/term"
)

var thresholds = map[string]zerolog.Level{
	"debug": zerolog.DebugLevel,
	"info":  zerolog.InfoLevel,
	"warn":  zerolog.WarnLevel,
	"error": zerolog.ErrorLevel,
}

// timeFormat is that of the log in JSON.
const timeFormat = "2006-01-02T15:04:05.000Z07:00"

// checkLog says what is wrong with the flags of the log.
func checkLog(format, level string) error {
	if _, known := thresholds[level]; !known {
		return fmt.Errorf("--log-level %q: use debug, info, warn or error", level)
	}
	if !slices.Contains([]string{"auto", "json", "text"}, format) {
		return fmt.Errorf("--log-format %q: use auto, json or text", format)
	}
	return nil
}

// newLog writes JSON, or text if stderr is a terminal. The caller closes the returned
// writer after the last line.
func newLog(format, level string) (zerolog.Logger, io.Closer, error) {
	if err := checkLog(format, level); err != nil {
		return zerolog.Logger{}, nil, err
	}
	zerolog.TimeFieldFormat = timeFormat
	writer := newDroppingWriter(os.Stderr)
	var out io.Writer = writer
	if format == "text" || format == "auto" && term.IsTerminal(int(os.Stderr.Fd())) {
		out = newConsole(writer, colored(os.Stderr))
	}
	return zerolog.New(out).Level(thresholds[level]).With().Timestamp().Logger(), writer, nil
}

const (
	linesKept  = 1000
	flushLimit = time.Second
)

// droppingWriter never blocks its caller: a reader of stderr that has
// stopped, such as a terminal after ^S, must not stop an upgrade. Lines for which there is
// no room are dropped and counted.
type droppingWriter struct {
	lines   chan []byte
	flushed chan struct{}
	dropped int
}

func newDroppingWriter(w io.Writer) *droppingWriter {
	p := &droppingWriter{lines: make(chan []byte, linesKept), flushed: make(chan struct{})}
	go p.copy(w)
	return p
}

func (p *droppingWriter) copy(w io.Writer) {
	defer close(p.flushed)
	// Without Notify, a write to a closed stderr ends a Go program by SIGPIPE. The signal
	// is not ignored instead, because the apps would inherit that.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	for line := range p.lines {
		_, _ = w.Write(line) // there is nowhere to report that the log cannot be written
	}
}

// Write takes a copy of line and always succeeds. It is for one goroutine.
func (p *droppingWriter) Write(line []byte) (int, error) {
	text := append([]byte(nil), line...)
	if p.dropped > 0 {
		text = append(fmt.Appendf(nil, "grace: %d log lines were dropped\n", p.dropped), text...)
	}
	select {
	case p.lines <- text:
		p.dropped = 0
	default:
		p.dropped++
	}
	return len(line), nil
}

// tellDropped waits a little for room for one more line.
func (p *droppingWriter) tellDropped() {
	select {
	case p.lines <- fmt.Appendf(nil, "grace: %d log lines were dropped\n", p.dropped):
	case <-time.After(flushLimit):
	}
}

// Close waits until the lines are written, but no longer than flushLimit.
func (p *droppingWriter) Close() error {
	if p.dropped > 0 {
		p.tellDropped()
	}
	close(p.lines)
	select {
	case <-p.flushed:
		return nil
	case <-time.After(flushLimit):
		return fmt.Errorf("cannot write the last lines of the log: stderr is blocked")
	}
}
