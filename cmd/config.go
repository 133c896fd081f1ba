package cmd

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// configFile is what the file of --config sets. Its keys are the flags of run, and command.
type configFile struct {
	path    string
	entries []configEntry
}

type configEntry struct {
	key    string
	line   int
	list   bool
	values []configValue
}

type configValue struct {
	text string
	line int
}

// commandKey is the key of the app's command line.
const commandKey = "command"

// readConfig reads a file whole or not at all.
func readConfig(path string) (*configFile, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read --config: %w", err)
	}
	return parseConfig(path, text)
}

func parseConfig(path string, text []byte) (*configFile, error) {
	if err := checkTOML(path, text); err != nil {
		return nil, err
	}
	f := &configFile{path: path}
	p := &unstable.Parser{}
	p.Reset(text)
	var errs []error
	for p.NextExpression() {
		entry, err := readEntry(p)
		if err != nil {
			errs = append(errs, f.at(entry.line, err))
			continue
		}
		f.entries = append(f.entries, entry)
	}
	return f, errors.Join(append(errs, p.Error())...)
}

// checkTOML finds what the parser of single expressions does not: keys that are there twice.
func checkTOML(path string, text []byte) error {
	err := toml.Unmarshal(text, &map[string]any{})
	if wrong := (*toml.DecodeError)(nil); errors.As(err, &wrong) {
		line, _ := wrong.Position()
		return fmt.Errorf("%s:%d: %s", path, line, strings.TrimPrefix(wrong.Error(), "toml: "))
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func (f *configFile) at(line int, err error) error { return fmt.Errorf("%s:%d: %w", f.path, line, err) }

func readEntry(p *unstable.Parser) (configEntry, error) {
	e := p.Expression()
	var parts []string
	entry := configEntry{}
	for key := e.Key(); key.Next(); {
		parts = append(parts, string(key.Node().Data))
		entry.line = lineOf(p, key.Node())
	}
	entry.key = strings.Join(parts, ".")
	if e.Kind != unstable.KeyValue {
		return entry, fmt.Errorf("[%s] is not valid: the file has no sections", entry.key)
	}
	value := e.Value()
	if value.Kind != unstable.Array {
		one, err := readValue(p, value, entry)
		entry.values = []configValue{one}
		return entry, err
	}
	entry.list = true
	for element := value.Children(); element.Next(); {
		one, err := readValue(p, element.Node(), entry)
		if err != nil {
			return entry, err
		}
		entry.values = append(entry.values, one)
	}
	return entry, nil
}

func readValue(p *unstable.Parser, n *unstable.Node, of configEntry) (configValue, error) {
	switch n.Kind {
	case unstable.String, unstable.Integer, unstable.Float, unstable.Bool:
		return configValue{string(n.Data), lineOf(p, n)}, nil
	}
	return configValue{}, fmt.Errorf("%s: use a string, a number, true, false or a list of these", of.key)
}

func lineOf(p *unstable.Parser, n *unstable.Node) int {
	if n.Raw.Length == 0 {
		n = &unstable.Node{Raw: p.Range(n.Data)}
	}
	return p.Shape(n.Raw).Start.Line
}

// apply sets the flags that the file names and that nobody has set yet, and names these. All that is wrong is said at once.
func (f *configFile) apply(flags *pflag.FlagSet) (set []string, err error) {
	var errs []error
	for _, entry := range f.entries {
		flag := flags.Lookup(entry.key)
		switch {
		case entry.key == commandKey:
			errs = append(errs, f.checkCommand(entry))
		case flag == nil || notInFile(entry.key):
			errs = append(errs, f.at(entry.line, unknownKey(entry.key, flags)))
		case !flag.Changed:
			set = append(set, entry.key)
			errs = append(errs, f.set(flags, flag, entry))
		}
	}
	return set, errors.Join(errs...)
}

// notInFile are flags that a file cannot have.
func notInFile(key string) bool { return key == "config" || key == "help" }

func (f *configFile) set(flags *pflag.FlagSet, flag *pflag.Flag, entry configEntry) error {
	if _, several := flag.Value.(pflag.SliceValue); entry.list && !several {
		return f.at(entry.line, fmt.Errorf("%s takes one value, not a list", entry.key))
	}
	for _, value := range entry.values {
		if err := flags.Set(entry.key, value.text); err != nil {
			return f.at(value.line, err)
		}
	}
	return nil
}

func (f *configFile) checkCommand(entry configEntry) error {
	if !entry.list || len(entry.values) == 0 || entry.values[0].text == "" {
		return f.at(entry.line, errors.New(`command must be a list of words, as in command = ["./app", "--port", "8080"]`))
	}
	return nil
}

// command is nil if the file has none.
func (f *configFile) command() (words []string) {
	for _, entry := range f.entries {
		if entry.key == commandKey {
			for _, value := range entry.values {
				words = append(words, value.text)
			}
		}
	}
	return words
}

func unknownKey(key string, flags *pflag.FlagSet) error {
	names := []string{commandKey}
	flags.VisitAll(func(f *pflag.Flag) {
		if !notInFile(f.Name) {
			names = append(names, f.Name)
		}
	})
	if nearest, ok := nearestOf(names, key); ok {
		return fmt.Errorf("unknown key %q (did you mean %s?)", key, nearest)
	}
	return fmt.Errorf("unknown key %q (the keys are the flags of grace run, and command)", key)
}

// withNearestFlag has the error for a flag that a command does not have name one that is written almost so.
func withNearestFlag(c *cobra.Command, err error) error {
	unknown := (*pflag.NotExistError)(nil)
	if !errors.As(err, &unknown) || unknown.GetSpecifiedShortnames() != "" {
		return err
	}
	var names []string
	c.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	if nearest, ok := nearestOf(names, unknown.GetSpecifiedName()); ok {
		return fmt.Errorf("%w (did you mean --%s?)", err, nearest)
	}
	return err
}

// nearestOf is one of the names that was probably meant.
func nearestOf(names []string, written string) (nearest string, ok bool) {
	if len(names) == 0 {
		return "", false
	}
	nearest = slices.MinFunc(names, func(a, b string) int { return distance(written, a) - distance(written, b) })
	return nearest, distance(written, nearest) <= max(2, len(written)/3)
}

// distance is how many letters have to be changed, put in or left out to make a of b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := before
			if a[i] != b[j] {
				change++
			}
			before = row[j+1]
			row[j+1] = min(change, before+1, row[j]+1)
		}
	}
	return row[len(b)]
}

// flagError is an error about the value of a flag that it does not name.
type flagError struct {
	flag string
	err  error
}

func (e *flagError) Error() string { return e.err.Error() }
func (e *flagError) Unwrap() error { return e.err }

// about is nil for nil.
func about(flag string, err error) error {
	if err == nil {
		return nil
	}
	return &flagError{flag, err}
}

// aboutFlag finds the flags that a text names.
var aboutFlag = regexp.MustCompile(`--([a-z][a-z-]*)`)

// locate puts the place in the file before each error about a flag that the file has set.
func (f *configFile) locate(err error, set []string) error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []error
		for _, one := range joined.Unwrap() {
			all = append(all, f.locate(one, set))
		}
		return errors.Join(all...)
	}
	if err == nil {
		return nil
	}
	flag := f.flagOf(err, set)
	for _, entry := range f.entries {
		if flag != "" && entry.key == flag {
			return f.at(entry.lineOf(err), err)
		}
	}
	return err
}

// flagOf is the first flag that an error names and the file has set, or empty.
func (f *configFile) flagOf(err error, set []string) string {
	if named := (*flagError)(nil); errors.As(err, &named) && slices.Contains(set, named.flag) {
		return named.flag
	}
	for _, found := range aboutFlag.FindAllStringSubmatch(err.Error(), -1) {
		if slices.Contains(set, found[1]) {
			return found[1]
		}
	}
	return ""
}

// lineOf is that of the value which an error quotes, or else of the key.
func (e configEntry) lineOf(err error) int {
	for _, value := range e.values {
		if strings.Contains(err.Error(), strconv.Quote(value.text)) {
			return value.line
		}
	}
	return e.line
}
