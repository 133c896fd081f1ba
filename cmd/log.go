package cmd

import (
	"fmt"
	"io"
	"os"
	"os/signal"
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

// newLog writes JSON, or lines for people where stderr is a terminal. The caller
// closes the returned writer when all is logged.
func newLog(format, level string) (zerolog.Logger, io.Closer, error) {
	threshold, known := thresholds[level]
	if !known {
		return zerolog.Logger{}, nil, fmt.Errorf("--log-level %q: use debug, info, warn or error", level)
	}
	zerolog.TimeFieldFormat = "2006-01-02T15:04:05.000Z07:00"
	// Go ends a program that writes to a closed stderr by SIGPIPE, unless the
	// signal is asked for; to ignore it would reach the apps too.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	patient := newPatientWriter(os.Stderr)
	var out io.Writer = patient
	terminal := term.IsTerminal(int(os.Stderr.Fd()))
	switch {
	case format == "text" || format == "auto" && terminal:
		out = zerolog.ConsoleWriter{Out: patient, TimeFormat: "15:04:05.000", NoColor: !terminal || os.Getenv("NO_COLOR") != ""}
	case format != "json" && format != "auto":
		return zerolog.Logger{}, nil, fmt.Errorf("--log-format %q: use auto, json or text", format)
	}
	return zerolog.New(out).Level(threshold).With().Timestamp().Logger(), patient, nil
}

const (
	linesKept  = 1000
	flushLimit = time.Second
)

// patientWriter never keeps its caller waiting: a reader of stderr that has
// stopped, such as a terminal at ^S, must not stop an upgrade. What it cannot
// take is dropped and counted.
type patientWriter struct {
	lines   chan []byte
	flushed chan struct{}
	dropped int
}

func newPatientWriter(w io.Writer) *patientWriter {
	p := &patientWriter{lines: make(chan []byte, linesKept), flushed: make(chan struct{})}
	go p.copy(w)
	return p
}

func (p *patientWriter) copy(w io.Writer) {
	defer close(p.flushed)
	for line := range p.lines {
		_, _ = w.Write(line) // a log that cannot be written has nowhere to say so
	}
}

// Write takes a copy of line and always succeeds. It is for one goroutine.
func (p *patientWriter) Write(line []byte) (int, error) {
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

// tellDropped gives the last lines a little time to leave room for one more.
func (p *patientWriter) tellDropped() {
	select {
	case p.lines <- fmt.Appendf(nil, "grace: %d log lines were dropped\n", p.dropped):
	case <-time.After(flushLimit):
	}
}

// Close waits for what was written, but not for ever.
func (p *patientWriter) Close() error {
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
