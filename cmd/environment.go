package cmd

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/pflag"
)

// addEnvironment sets each flag that the command line left alone from its
// GRACE_* variable. A flag that may be repeated takes several values separated
// by spaces.
func addEnvironment(flags *pflag.FlagSet) error {
	var failed error
	flags.VisitAll(func(f *pflag.Flag) {
		value, ok := os.LookupEnv(variableOf(f.Name))
		if !ok || f.Changed || failed != nil || f.Name == "help" {
			return
		}
		if err := setAll(flags, f, value); err != nil {
			failed = fmt.Errorf("cannot use %s: %w", variableOf(f.Name), err)
		}
	})
	return failed
}

func variableOf(flag string) string {
	return "GRACE_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

func setAll(flags *pflag.FlagSet, f *pflag.Flag, value string) error {
	if _, several := f.Value.(pflag.SliceValue); !several {
		return flags.Set(f.Name, value)
	}
	for _, one := range strings.Fields(value) {
		if err := flags.Set(f.Name, one); err != nil {
			return err
		}
	}
	return nil
}
