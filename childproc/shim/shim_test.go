package shim

import (
	"reflect"
	"slices"
	"syscall"
	"testing"
)

func TestErrandTravels(t *testing.T) {
	for _, e := range []Spec{
		{Path: "/bin/app", Umask: -1, Report: 3, Capture: -1},
		{Path: "app with spaces", PIDVars: []string{"LISTEN_PID", "OTHER"}, Umask: 0o27, Report: 70},
		{Path: "/a", Umask: 0, Report: 3, Identity: &Identity{UID: 5, GID: 6, Groups: []int{6, 7}}},
		{Path: "/a", Report: 3, Capture: 4, NoNewPrivs: true},
		{Path: "/a", Report: 3, Capture: 4, Unlink: true},
		{Path: "/a", Report: 3, Capture: -1, Program: 5},
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
	right := []string{"-1", "3", "-", "", "-1", "false", "false", "/a", "0"}
	for i, word := range map[int]string{0: "x", 1: "x", 2: "5,", 4: "", 5: "maybe", 6: "", 8: "x"} {
		wrong := slices.Clone(right)
		wrong[i] = word
		if e, ok := parse(wrong); ok {
			t.Errorf("%q is %+v", wrong, e)
		}
	}
	if _, ok := parse(right); !ok {
		t.Errorf("%q is no task", right)
	}
}

func TestNonsenseIsNobody(t *testing.T) {
	for _, text := range []string{"", "5,", "a,b,"} {
		if id, ok := parseIdentity(text); ok {
			t.Errorf("%q is %+v", text, id)
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
