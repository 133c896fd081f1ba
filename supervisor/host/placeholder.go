package host

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"github.com/gracerun/grace/supervisor/machine"
)

// placeholders are {generation} and {instance}. With a $ in front they are a shell's variables, and not ours.
var placeholders = pattern(`\$?\{(generation|instance)\}`)

// filled are the command and the environment as one instance gets them: in the command and in the values of the
// environment file the placeholders have its numbers.
func (l *LaunchSpec) filled(s machine.Start) (args, env []string) {
	fill := func(text string) string {
		if !strings.Contains(text, "{") {
			return text
		}
		return placeholders().ReplaceAllStringFunc(text, func(placeholder string) string {
			switch placeholder {
			case "{generation}":
				return strconv.Itoa(cmp.Or(s.Of, s.Generation)) // a batch has a number of its own
			case "{instance}":
				return strconv.Itoa(s.Slot)
			}
			return placeholder
		})
	}
	for _, word := range l.Command {
		args = append(args, fill(word))
	}
	env = slices.Clone(l.Env)
	for i := len(env) - l.fromFile; i < len(env); i++ {
		name, value, _ := strings.Cut(env[i], "=")
		env[i] = name + "=" + fill(value)
	}
	return args, unique(env)
}
