package requirement

import (
	"errors"
	"runtime"
	"testing"
)

// judge notes the verdict on a test, and ends its goroutine as a real one does.
type judge struct {
	testing.TB
	verdict string
}

func (*judge) Helper() {}

func (j *judge) Fatalf(string, ...any) { j.end("failed") }
func (j *judge) Skipf(string, ...any)  { j.end("skipped") }

func (j *judge) end(verdict string) {
	j.verdict = verdict
	runtime.Goexit()
}

func TestCheck(t *testing.T) {
	missing := errors.New("not installed")
	for _, test := range []struct {
		required string
		err      error
		want     string
	}{
		{"", nil, "ran"}, {"all", nil, "ran"},
		{"", missing, "skipped"}, {"docker,netns", missing, "skipped"},
		{"runc", missing, "failed"}, {"docker,runc", missing, "failed"}, {"all", missing, "failed"},
	} {
		t.Setenv(variable, test.required)
		j, ended := &judge{}, make(chan struct{})
		go func() {
			defer close(ended)
			Check(j, "runc", test.err)
			j.verdict = "ran"
		}()
		if <-ended; j.verdict != test.want {
			t.Errorf("%s=%q with %v: %s, want %s", variable, test.required, test.err, j.verdict, test.want)
		}
	}
}
