// Package gracelog starts grace and reads the log that it writes with --log-format json, for the demo, the benchmarks and the
// tests.
package gracelog

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"time"
)

// Entry is one line of the log. A line of something else, such as the app, has nothing but the text.
type Entry struct {
	Text       string    `json:"-"` // the whole line
	Read       time.Time `json:"-"` // when it was read
	Time       time.Time
	Level      string
	Message    string
	Generation int
	Instance   int
	PID        int
	Name       string
	Network    string
	Address    string
	Why        string
	Took       float64 `json:"took_ms"`
}

// String is for people.
func (e Entry) String() string {
	switch {
	case e.Message == "":
		return e.Text
	case e.Why == "":
		return e.Message
	}
	return e.Message + ": " + e.Why
}

// start is how each line of grace's begins.
var start = []byte(`{"level":`)

// Parse reads one line. What an app has written before is left out of the fields: some apps write their lines piece by
// piece.
func Parse(line []byte) Entry {
	e := Entry{}
	if json.Unmarshal(line[max(0, bytes.Index(line, start)):], &e) != nil {
		e = Entry{}
	}
	e.Text = string(line)
	return e
}

// Read calls each for every line, until the end of r or an error.
func Read(r io.Reader, each func(Entry)) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		e := Parse(lines.Bytes())
		e.Read = time.Now()
		each(e)
	}
	return lines.Err()
}
