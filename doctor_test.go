//go:build linux

package main

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"os/exec"
	"testing"

	"github.com/gracerun/grace/internal/requirement"
	"github.com/gracerun/grace/supervisor/doctor"
)

// denies is what a container's seccomp profile forbids.
func denies(calls ...string) func(config) {
	return func(spec config) {
		spec.at("linux")["seccomp"] = config{
			"defaultAction": "SCMP_ACT_ALLOW",
			"syscalls":      []config{{"names": calls, "action": "SCMP_ACT_ERRNO"}},
		}
	}
}

// asDocker has docker's capabilities, which suffice to change users but not to trace others, and some more.
func asDocker(more ...string) func(config) {
	granted := append([]string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_NET_BIND_SERVICE",
		"CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
	}, more...)
	return func(spec config) {
		spec.at("process")["capabilities"] = config{"bounding": granted, "effective": granted, "permitted": granted}
	}
}

func both(first, second func(config)) func(config) {
	return func(spec config) { first(spec); second(spec) }
}

func TestDoctorInContainers(t *testing.T) {
	type states map[string]doctor.State
	for name, c := range map[string]struct {
		change         func(config)
		flags          []string
		want           states
		held, captured doctor.State
	}{
		"root": {asRoot, nil, states{
			"PID 1": doctor.OK, "app's sockets": doctor.OK, "seccomp listener": doctor.Limited,
		}, doctor.OK, doctor.Limited},
		"anybody": {asAnybody, nil, states{
			"readiness by looking": doctor.OK, "app's sockets": doctor.OK, "ports below 1024": doctor.Missing,
		}, doctor.OK, doctor.Limited},
		"a profile against pidfd_getfd": {denies("pidfd_getfd"), nil, states{
			"app's memory": doctor.OK, "app's sockets": doctor.Limited,
		}, doctor.OK, doctor.Limited},
		"anybody, a profile against pidfd_getfd": {both(asAnybody, denies("pidfd_getfd")), nil, states{
			"app's memory": doctor.OK, "app's sockets": doctor.Limited,
		}, doctor.OK, doctor.Limited},
		"docker's capabilities": {asDocker(), nil, states{
			"readiness by looking": doctor.OK, "app's sockets": doctor.OK,
		}, doctor.OK, doctor.Limited},
		"docker's capabilities, another user": {asDocker(), []string{"--user", "12345"}, states{
			"readiness by looking": doctor.Limited, "counting connections": doctor.Limited, "app's memory": doctor.Missing,
		}, doctor.OK, doctor.Missing},
		"docker's capabilities and that to trace, another user": {asDocker("CAP_SYS_PTRACE"), []string{"--user", "12345"}, states{
			"readiness by looking": doctor.OK, "counting connections": doctor.OK, "app's memory": doctor.OK, "app's sockets": doctor.OK,
		}, doctor.OK, doctor.Limited},
		"a profile against seccomp": {denies("seccomp"), nil, states{
			"seccomp listener": doctor.Missing, "held listeners": doctor.OK,
		}, doctor.OK, doctor.Missing},
		"a user that it may not become": {asRoot, []string{"--user", "12345"}, nil, doctor.Missing, doctor.Missing},
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
func examineIn(t *testing.T, change func(config), flags []string) doctor.Report {
	t.Helper()
	requirement.Check(t, "runc", mayContain())
	bundle := makeBundle(t, func(spec config) {
		spec.at("process")["args"] = append([]string{"/grace", "doctor", "--json"}, flags...)
		change(spec)
	})
	c := &container{t: t, name: "grace-doctor-" + rand.Text(), state: t.TempDir()}
	t.Cleanup(c.checkRemoved)
	out, err := c.runc("run", "--bundle", bundle, c.name).Output()
	if ended := (*exec.ExitError)(nil); err != nil && (!errors.As(err, &ended) || ended.ExitCode() != 1 || len(out) == 0) {
		t.Fatalf("%v: %s", err, out)
	}
	var r doctor.Report
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return r
}
