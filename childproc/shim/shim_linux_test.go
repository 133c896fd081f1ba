package shim

import (
	"reflect"
	"slices"
	"syscall"
	"testing"
)

func TestErrandTravels(t *testing.T) {
	for _, e := range []Errand{
		{Path: "/bin/app", Umask: -1, Report: 3},
		{Path: "app with spaces", PIDVars: []string{"LISTEN_PID", "OTHER"}, Umask: 0o27, Report: 70},
		{Path: "/a", Umask: 0, Report: 3, Identity: &Identity{UID: 5, GID: 6, Groups: []int{6, 7}}},
	} {
		args := []string{"app", "", "-x y"}
		argv := e.Argv(args)
		got, ok := parse(argv[1:head])
		if !ok || !reflect.DeepEqual(got, e) || !slices.Equal(argv[head:], args) || argv[0] != name {
			t.Errorf("%+v came as %+v, %v, with %q", e, got, ok, argv)
		}
	}
}

func TestNonsenseIsNoErrand(t *testing.T) {
	for _, f := range [][]string{
		{"x", "3", "-", "", "/a"}, {"-1", "x", "-", "", "/a"}, {"-1", "3", "5,", "", "/a"}, {"-1", "3", "a,b,", "", "/a"}, {"-1", "3", "", "", "/a"},
	} {
		if e, ok := parse(f); ok {
			t.Errorf("%q is %+v", f, e)
		}
	}
}

func TestFailures(t *testing.T) {
	if f, ok := ParseFailure("exec,2,"); !ok || f.Step != "exec" || f.Errno != syscall.ENOENT {
		t.Errorf("%+v, %v", f, ok)
	}
	for _, text := range []string{"", "exec", "exec,", "exec,x,", "exec,2,3,"} {
		if f, ok := ParseFailure(text); ok {
			t.Errorf("%q is %+v", text, f)
		}
	}
}

func TestOnlyTheNameMakesAShim(t *testing.T) {
	for text, want := range map[string]bool{
		name + "\x00": true, name + "\x00-1\x00": true, name: false, "": false, name + "s\x00": false, "grace\x00" + name + "\x00": false,
	} {
		if isShim([]byte(text)) != want {
			t.Errorf("%q: not %v", text, want)
		}
	}
}
