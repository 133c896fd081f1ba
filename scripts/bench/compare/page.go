package compare

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/gracerun/grace/internal/hostinfo"
)

// report is what a run has found, as --results keeps it.
type report struct {
	Command, Machine, Date, Took, Load string
	Planned                            int // measurements; the last ones may have been left out
	Results                            []result
}

// report is measured, or read from a file of an earlier run.
func (r run) report(machine func() string) (report, error) {
	if r.from != "" {
		return readReport(r.from)
	}
	begun := time.Now()
	found := report{Command: r.command, Machine: machine(), Date: begun.Format(time.DateOnly)}
	var err error
	if found.Results, found.Planned, err = r.measure(); err != nil {
		return found, err
	}
	found.Took, found.Load = time.Since(begun).Round(time.Second).String(), hostinfo.LoadAverage()
	return found, r.keepReport(found)
}

func readReport(path string) (found report, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return found, err
	}
	return found, json.Unmarshal(text, &found)
}

func (r run) keepReport(found report) error {
	if r.keep == "" {
		return nil
	}
	text, err := json.MarshalIndent(found, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(r.keep, text, 0o644)
}

// show prints the tables, or writes them into the page.
func (r run) show(found report) error {
	if r.write == "" {
		fmt.Print(found)
		return nil
	}
	page, err := os.ReadFile(r.write)
	if err != nil {
		return err
	}
	pictures, err := draw(found.Results, r.write)
	if err != nil {
		return err
	}
	text, err := replaceBetween(string(page), pictures+found.String())
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", r.write, err)
	}
	return os.WriteFile(r.write, []byte(text), 0o644)
}

func (found report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "    %s\n\n%s. %s, %s, load %s at the end. %d of %d measurements fitted into the time.\n", found.Command, found.Machine, found.Date, found.Took, found.Load,
		len(found.Results), found.Planned)
	for _, t := range tables(found.Results) {
		fmt.Fprintf(&b, "\n%s", t)
	}
	return b.String()
}

// The page's text between these is written by a run.
const (
	beginMark = "<!-- written by scripts/bench compare -->\n"
	endMark   = "<!-- end -->\n"
)

func replaceBetween(page, text string) (string, error) {
	before, rest, begins := strings.Cut(page, beginMark)
	_, after, ends := strings.Cut(rest, endMark)
	if !begins || !ends {
		return "", fmt.Errorf("it has no lines %q and %q", strings.TrimSpace(beginMark), strings.TrimSpace(endMark))
	}
	return before + beginMark + "\n" + text + "\n" + endMark + after, nil
}
