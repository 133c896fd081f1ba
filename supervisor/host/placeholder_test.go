package host

import (
	"slices"
	"testing"

	"github.com/gracerun/grace/supervisor/machine"
)

func TestPlaces(t *testing.T) {
	l := &LaunchSpec{
		LaunchSpec: machine.LaunchSpec{Command: []string{"app", "--pid=/run/app.{generation}.{instance}", "${generation} {generations} {{instance}} {fd}", `{"a":"b"}`}},
		Env:        []string{"A={generation}", "B={generation}", "A=x{instance}=${instance}"},
		fromFile:   1,
	}
	args, env := l.filled(machine.Start{Generation: 3, Instance: 7, Slot: 1})
	if want := []string{"app", "--pid=/run/app.3.1", "${generation} {generations} {1} {fd}", `{"a":"b"}`}; !slices.Equal(args, want) {
		t.Errorf("command %q", args)
	}
	if want := []string{"B={generation}", "A=x1=${instance}"}; !slices.Equal(env, want) {
		t.Errorf("environment %q", env)
	}
	if again := LaunchSpecState.Launch(l.State()); again.fromFile != 1 {
		t.Error("the environment file's part does not travel")
	}
}
