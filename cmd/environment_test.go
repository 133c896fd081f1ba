package cmd

import (
	"fmt"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// sample is a value for a flag that is not its default.
func sample(f *pflag.Flag) (written, want string) {
	switch f.Value.Type() {
	case "bool":
		return "true", "true"
	case "int":
		return "7", "7"
	case "duration":
		return "90s", "1m30s"
	case "stringArray", "stringSlice":
		return " one  two ", "[one,two]"
	case "string":
		return "some words", "some words"
	}
	return "", fmt.Sprintf("no sample of a %s", f.Value.Type())
}

func newFlags() *pflag.FlagSet { return newRun().Flags() }

func TestEveryFlagHasAVariable(t *testing.T) {
	seen := 0
	newFlags().VisitAll(func(f *pflag.Flag) {
		seen++
		t.Run(f.Name, func(t *testing.T) {
			written, want := sample(f)
			variable := "GRACE_" + strings.ReplaceAll(strings.ToUpper(f.Name), "-", "_")
			t.Setenv(variable, written)
			flags := newFlags()
			if err := addEnvironment(flags); err != nil {
				t.Fatal(err)
			}
			if got := flags.Lookup(f.Name).Value.String(); got != want {
				t.Errorf("%s=%q made --%s %q, want %q", variable, written, f.Name, got, want)
			}
			flags.Visit(func(changed *pflag.Flag) {
				if changed.Name != f.Name {
					t.Errorf("%s set --%s too", variable, changed.Name)
				}
			})
		})
	})
	if seen == 0 {
		t.Fatal("run has no flags")
	}
}

func TestFlagsWinOverVariables(t *testing.T) {
	newFlags().VisitAll(func(f *pflag.Flag) {
		t.Run(f.Name, func(t *testing.T) {
			given, _ := sample(f)
			t.Setenv(variableOf(f.Name), "0")
			flags := newFlags()
			if err := flags.Set(f.Name, given); err != nil {
				t.Fatal(err)
			}
			want := flags.Lookup(f.Name).Value.String()
			if err := addEnvironment(flags); err != nil {
				t.Fatal(err)
			}
			if got := flags.Lookup(f.Name).Value.String(); got != want {
				t.Errorf("--%s is %q, want %q from the command line", f.Name, got, want)
			}
		})
	})
}

func TestBadVariables(t *testing.T) {
	for _, c := range []struct{ variable, value string }{
		{"GRACE_INSTANCES", ""},
		{"GRACE_INSTANCES", "1 2"},
		{"GRACE_EVICT", "perhaps"},
		{"GRACE_DRAIN_TIMEOUT", "30"},
		{"GRACE_DIALECT", `"`},
	} {
		t.Run(c.variable+"="+c.value, func(t *testing.T) {
			t.Setenv(c.variable, c.value)
			err := addEnvironment(newFlags())
			if err == nil || !strings.HasPrefix(err.Error(), "cannot use "+c.variable+": ") {
				t.Errorf("error %v does not name the variable", err)
			}
		})
	}
}

func TestEmptyVariableOfARepeatedFlag(t *testing.T) {
	t.Setenv("GRACE_LISTEN", "")
	flags := newFlags()
	if err := addEnvironment(flags); err != nil {
		t.Fatal(err)
	}
	if flags.Changed("listen") {
		t.Error("an empty GRACE_LISTEN gave a socket")
	}
}

// A variable reaches the options on the same way as a flag.
func TestVariableOfACommand(t *testing.T) {
	status, said := runGrace(t, []string{"GRACE_RESTART=never", "GRACE_LOG_FORMAT=text"}, "run", "sh", "-c", "exit 7")
	if status != 7 || strings.Contains(said, `{"level"`) {
		t.Errorf("status %d, want 7 and text:\n%s", status, said)
	}
}
