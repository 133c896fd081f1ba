package strategy

import (
	"errors"
	"os/exec"
	"strings"
	"testing"

	"github.com/gracerun/grace/supervisor/control"
	"github.com/gracerun/grace/test/harness"
)

// What cannot be done is refused, with a reason, and nothing is begun.
func TestRefusals(t *testing.T) {
	t.Parallel()
	a := start(t, "held", nil)
	before := a.generation(1).Instances[0].PID
	for name, test := range map[string]struct {
		arguments []string
		status    int
		why       string
	}{
		"a canary with a shared socket":  {[]string{"upgrade", a.Name, "--canary", "5%"}, 1, "?steer=true"},
		"a canary that is none":          {[]string{"upgrade", a.Name, "--canary", "50%,5%"}, 1, "the shares have to grow"},
		"a surge that is none":           {[]string{"upgrade", a.Name, "--max-surge", "all"}, 1, "--max-surge"},
		"no instance":                    {[]string{"scale", a.Name, "0"}, 2, "is no number of instances"},
		"too many":                       {[]string{"scale", a.Name, "100000"}, 1, "1000"},
		"a promotion where nobody waits": {[]string{"promote", a.Name}, 1, "no generation gets only a share"},
		"a rollback of the first":        {[]string{"rollback", a.Name}, 1, "no earlier generation"},
	} {
		out, err := exec.Command(harness.GraceBinary(), test.arguments...).CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != test.status || !strings.Contains(string(out), test.why) {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
	c, _ := harness.Client(t, a.Name)
	if _, err := c.Ask(t.Context(), control.Request{Do: control.Scale}); err == nil || !strings.Contains(err.Error(), "instances") {
		t.Errorf("a request for no instances: %v", err)
	}
	if s := a.status(); s.Current != 1 || len(s.Generations) != 1 || s.Generations[0].Instances[0].PID != before {
		t.Errorf("the status is %+v", s)
	}
	a.End()
}

// A flag that cannot be heeded ends grace before it starts anything.
func TestFlagsThatCannotBe(t *testing.T) {
	t.Parallel()
	for _, flags := range [][]string{{"--canary", "5"}, {"--canary", "5%:x"}, {"--max-surge", "-1"}, {"--max-surge", "101%"}, {"--canary-by", "day"}, {"--instances", "0"}} {
		out, err := exec.Command(harness.GraceBinary(), append(append([]string{"run"}, flags...), "--", "true")...).CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 2 || !strings.Contains(string(out), strings.TrimPrefix(flags[0], "--")) {
			t.Errorf("%v: %v\n%s", flags, err, out)
		}
	}
}
