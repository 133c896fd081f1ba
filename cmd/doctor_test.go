package cmd

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/gracerun/grace/supervisor/doctor"
)

func TestDoctorEndsWithWhatItFound(t *testing.T) {
	for name, c := range map[string]struct {
		args   []string
		status int
		says   string
	}{
		"works":         {nil, 0, "grace run --listen (grace holds the sockets): works here"},
		"does not work": {[]string{"--user", "nobody-at-all"}, 1, "grace run --listen (grace holds the sockets): does not work here"},
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			cmd := grace(append([]string{"doctor"}, c.args...)...)
			cmd.Stdout = &out
			if status := statusOf(t, cmd); status != c.status {
				t.Errorf("status %d, want %d", status, c.status)
			}
			if !strings.Contains(out.String(), c.says) {
				t.Errorf("it does not say %q:\n%s", c.says, &out)
			}
		})
	}
}

func TestDoctorSpeaksJSON(t *testing.T) {
	var out strings.Builder
	cmd := grace("doctor", "--json")
	cmd.Env = append(cmd.Env, "GRACE_DRAIN_TIMEOUT=11m")
	cmd.Stdout = &out
	if status := statusOf(t, cmd); status != 0 {
		t.Errorf("status %d", status)
	}
	var r doctor.Report
	if err := json.Unmarshal([]byte(out.String()), &r); err != nil {
		t.Fatalf("%v: %s", err, &out)
	}
	if r.Held == doctor.Missing || r.Captured == "" {
		t.Errorf("held listeners: %q, capture: %q", r.Held, r.Captured)
	}
	i := slices.IndexFunc(r.Findings, func(f doctor.Finding) bool { return f.Mechanism == "service manager" })
	if i < 0 || !strings.Contains(r.Findings[i].Means, "--drain-timeout is 11m0s") {
		t.Errorf("the variable was not heeded: %+v", r.Findings)
	}
}

func TestDoctorRefusesWhatMakesNoSense(t *testing.T) {
	for name, args := range map[string][]string{
		"an argument":     {"doctor", "./app"},
		"a wait":          {"doctor", "--drain-timeout", "30"},
		"a flag":          {"doctor", "--fix"},
		"a test app idle": {testAppCommand},
	} {
		t.Run(name, func(t *testing.T) {
			if status, said := runGrace(t, nil, args...); status != statusUsage || said == "" {
				t.Errorf("status %d: %s", status, said)
			}
		})
	}
}

func TestReportIsATable(t *testing.T) {
	var out strings.Builder
	report := doctor.Report{Held: doctor.OK, Captured: doctor.Limited, Findings: []doctor.Finding{
		{Mechanism: "one", State: doctor.OK, Means: "fine"},
		{Mechanism: "another", State: doctor.Limited, Means: strings.Repeat("word ", 17), Do: "this"},
	}}
	if err := printReport(&out, report, 0); err != nil {
		t.Fatal(err)
	}
	const want = `one                   ok       fine
another               limited  word word word word word word word word word word word word word word word
                               word word
                               -> this

grace run --listen (grace holds the sockets): works here
grace run without it (the app binds itself): works here, with limits
`
	if out.String() != want {
		t.Errorf("printed\n%s", &out)
	}
}

func TestReportInANarrowTerminal(t *testing.T) {
	var out strings.Builder
	report := doctor.Report{Findings: []doctor.Finding{{Mechanism: "one", State: doctor.OK, Means: "works as it does elsewhere too"}}}
	if err := printReport(&out, report, 53); err != nil {
		t.Fatal(err)
	}
	if want := "one                   ok       works as it does\n                               elsewhere too\n"; !strings.HasPrefix(out.String(), want) {
		t.Errorf("printed\n%s", &out)
	}
}

func TestWrap(t *testing.T) {
	for _, c := range []struct {
		text string
		want []string
	}{
		{"", []string{""}},
		{"ab cd", []string{"ab cd"}},
		{"ab cde", []string{"ab", "cde"}},
		{"longer-than-it a", []string{"longer-than-it", "a"}},
	} {
		if got := wrap(c.text, 5); !slices.Equal(got, c.want) {
			t.Errorf("%q became %q", c.text, got)
		}
	}
}
