package cmd

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/gracerun/grace/cmd/fold"
	"github.com/gracerun/grace/supervisor/doctor"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

const doctorLong = `doctor tests the kernel features that grace needs, on this machine or in this container,
and prints for each whether it works, what that means, and what to do. To test them it
starts small apps, as run does, and leaves nothing behind.

Run doctor where grace will run: as the same user, in the same container or unit, and
with the same --user.

Exit status:
  0  sockets that grace holds (grace run --listen) work here
  1  a feature that grace always needs is missing
  2  the command line is wrong`

const doctorExample = `  grace doctor
  sudo grace doctor --user www-data
  docker run --rm my-image grace doctor --json`

// testAppCommand is by which doctor starts itself as an app.
const testAppCommand = "doctor-app"

func newDoctor() *cobra.Command {
	o := doctor.Options{TestApp: []string{"grace", testAppCommand}}
	asJSON := false
	c := &cobra.Command{
		Use:     "doctor",
		Short:   "Check what works on this machine, and what is missing",
		Long:    doctorLong,
		Example: doctorExample,
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := addEnvironment(c.Flags()); err != nil {
				return err
			}
			return examine(o, asJSON)
		},
	}
	addDoctorFlags(c.Flags(), &o)
	c.Flags().BoolVar(&asJSON, "json", false, "print the findings as JSON")
	return c
}

func addDoctorFlags(flags *pflag.FlagSet, o *doctor.Options) {
	flags.StringVar(&o.User, "user", "", "user to run the test apps as")
	flags.StringVar(&o.Group, "group", "", "group to run the test apps as")
	flags.DurationVar(&o.DrainDelay, "drain-delay", 0, "the --drain-delay that run will get")
	flags.DurationVar(&o.DrainTimeout, "drain-timeout", 30*time.Second, "the --drain-timeout that run will get, to compare with what the service manager allows")
}

func newDoctorPatient() *cobra.Command {
	return &cobra.Command{
		Use:    testAppCommand,
		Short:  "The small app that doctor starts",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE:   func(_ *cobra.Command, args []string) error { return doctor.RunTestApp(args[0]) },
	}
}

func examine(o doctor.Options, asJSON bool) error {
	report := doctor.Examine(o)
	write := func(w io.Writer, r doctor.Report) error { return printReport(w, r, fold.Columns(os.Stdout)) }
	if asJSON {
		write = encodeReport
	}
	if err := write(os.Stdout, report); err != nil {
		return fmt.Errorf("cannot print the findings: %w", err)
	}
	if report.Held == doctor.Missing {
		return exitStatus(1)
	}
	return nil
}

func encodeReport(w io.Writer, r doctor.Report) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(r)
}

// Widths of the table's columns.
const (
	mechanismWidth = 22
	stateWidth     = 9
	textWidth      = 78
	leastTextWidth = 20
)

// printReport makes the text as wide as a terminal of so many columns has room for.
func printReport(w io.Writer, r doctor.Report, width int) error {
	var text strings.Builder
	room := textWidth
	if width > 0 {
		room = max(leastTextWidth, min(room, width-mechanismWidth-stateWidth))
	}
	for _, f := range r.Findings {
		printRow(&text, room, f.Mechanism, string(f.State), f.Means)
		if f.Do != "" {
			printRow(&text, room, "", "", "-> "+f.Do)
		}
	}
	fmt.Fprintf(&text, "\ngrace run --listen (grace holds the sockets): %s\n", verdicts[r.Held])
	fmt.Fprintf(&text, "grace run without it (the app binds itself): %s\n", verdicts[r.Captured])
	_, err := io.WriteString(w, text.String())
	return err
}

var verdicts = map[doctor.State]string{
	doctor.OK:      "works here",
	doctor.Limited: "works here, with limits",
	doctor.Missing: "does not work here",
}

// printRow puts what does not fit in a line below.
func printRow(w *strings.Builder, width int, mechanism, state, text string) {
	for _, line := range wrap(text, width) {
		fmt.Fprintf(w, "%-*s%-*s%s\n", mechanismWidth, mechanism, stateWidth, state, line)
		mechanism, state = "", ""
	}
}

func wrap(text string, width int) []string {
	lines := []string{""}
	for word := range strings.FieldsSeq(text) {
		last := &lines[len(lines)-1]
		switch {
		case *last == "":
			*last = word
		case len(*last)+1+len(word) <= width:
			*last += " " + word
		default:
			lines = append(lines, word)
		}
	}
	return lines
}
