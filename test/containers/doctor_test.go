package containers

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"os/exec"
	"testing"

	"github.com/gracerun/grace/internal/requirement"
	"github.com/gracerun/grace/supervisor/doctor"
	"github.com/gracerun/grace/test/harness"
)

func TestDoctorInContainers(t *testing.T) {
	type states map[string]doctor.State
	for name, c := range map[string]struct {
		change         func(harness.Spec)
		flags          []string
		want           states
		held, captured doctor.State
	}{
		"root": {harness.AsRoot, nil, states{
			"PID 1": doctor.OK, "app's sockets": doctor.OK, "seccomp listener": doctor.Limited,
		}, doctor.OK, doctor.Limited},
		"anybody": {harness.AsAnybody, nil, states{
			"readiness by looking": doctor.OK, "app's sockets": doctor.OK, "ports below 1024": doctor.Missing,
		}, doctor.OK, doctor.Limited},
		"a profile against pidfd_getfd": {harness.Denies("pidfd_getfd"), nil, states{
			"app's memory": doctor.OK, "app's sockets": doctor.Limited, "farewell": doctor.Limited,
		}, doctor.OK, doctor.Limited},
		"anybody, a profile against pidfd_getfd": {harness.Both(harness.AsAnybody, harness.Denies("pidfd_getfd")), nil, states{
			"app's memory": doctor.OK, "app's sockets": doctor.Limited,
		}, doctor.OK, doctor.Limited},
		"docker's capabilities": {harness.AsDocker(), nil, states{
			"readiness by looking": doctor.OK, "app's sockets": doctor.OK, "farewell": doctor.Limited,
		}, doctor.OK, doctor.Limited},
		"docker's capabilities and those for farewell": {harness.AsDocker("CAP_BPF", "CAP_NET_ADMIN"), nil, states{
			"farewell": doctor.OK,
		}, doctor.OK, doctor.Limited},
		"docker's capabilities, another user": {harness.AsDocker(), []string{"--user", "12345"}, states{
			"readiness by looking": doctor.Limited, "counting connections": doctor.Limited, "app's memory": doctor.Missing,
		}, doctor.OK, doctor.Missing},
		"docker's capabilities and those for farewell, another user": {harness.AsDocker("CAP_BPF", "CAP_NET_ADMIN"), []string{"--user", "12345"}, states{
			"farewell": doctor.Limited,
		}, doctor.OK, doctor.Missing},
		"docker's capabilities and that to trace, another user": {harness.AsDocker("CAP_SYS_PTRACE"), []string{"--user", "12345"}, states{
			"readiness by looking": doctor.OK, "counting connections": doctor.OK, "app's memory": doctor.OK, "app's sockets": doctor.OK,
		}, doctor.OK, doctor.Limited},
		"a profile against seccomp": {harness.Denies("seccomp"), nil, states{
			"seccomp listener": doctor.Missing, "held listeners": doctor.OK,
		}, doctor.OK, doctor.Missing},
		"a user that it may not become": {harness.AsRoot, []string{"--user", "12345"}, nil, doctor.Missing, doctor.Missing},
	} {
		t.Run(name, func(t *testing.T) {
			r := examineIn(t, c.change, c.flags)
			for _, f := range r.Findings {
				if want, ok := c.want[f.Mechanism]; ok && f.State != want {
					t.Errorf("%s is %s, want %s: %s", f.Mechanism, f.State, want, f.Means)
				}
				delete(c.want, f.Mechanism)
			}
			if len(c.want) > 0 {
				t.Errorf("nothing is said of %v", c.want)
			}
			if r.Held != c.held || r.Captured != c.captured {
				t.Errorf("held listeners: %s, capture: %s; want %s and %s: %+v", r.Held, r.Captured, c.held, c.captured, r.Findings)
			}
		})
	}
}

// examineIn has grace doctor be PID 1 of a container.
func examineIn(t *testing.T, change func(harness.Spec), flags []string) doctor.Report {
	t.Helper()
	requirement.Check(t, "runc", harness.MayContain())
	bundle := harness.MakeBundle(t, func(spec harness.Spec) {
		spec.At("process")["args"] = append([]string{"/grace", "doctor", "--json"}, flags...)
		change(spec)
	})
	c := &harness.Container{T: t, Name: "grace-doctor-" + rand.Text(), State: t.TempDir()}
	t.Cleanup(c.CheckRemoved)
	out, err := c.Runc("run", "--bundle", bundle, c.Name).Output()
	if ended := (*exec.ExitError)(nil); err != nil && (!errors.As(err, &ended) || ended.ExitCode() != 1 || len(out) == 0) {
		t.Fatalf("%v: %s", err, out)
	}
	var r doctor.Report
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return r
}
