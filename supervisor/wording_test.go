package supervisor

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gracerun/grace/supervisor/machine"
)

func TestEveryFactHasWords(t *testing.T) {
	for _, fact := range machine.Facts() {
		l := worded(machine.Report{Fact: fact, Serving: 1, Listener: "web", Said: "something", Share: 2500})
		if l.text == "" || strings.Contains(strings.ReplaceAll(l.text, "25 %", ""), "%") {
			t.Errorf("fact %d is put as %q", fact, l.text)
		}
		if l.event != "" && !slices.Contains(EventNames(), string(l.event)) {
			t.Errorf("%q is the event %q, which no hook can name", l.text, l.event)
		}
	}
	if len(wordings) != len(machine.Facts()) {
		t.Errorf("%d facts have words, and there are %d", len(wordings), len(machine.Facts()))
	}
}

// TestEventNamesStay: hooks, metrics and clients of the control socket are written for them.
func TestEventNamesStay(t *testing.T) {
	want := strings.Fields("serving upgrading upgraded failed undone refused superseded crashed restarting killed draining drained sharing scaled replaced stopping")
	if got := EventNames(); !slices.Equal(got, want) {
		t.Errorf("the events are %q", got)
	}
}

func TestEveryEventHappens(t *testing.T) {
	for _, name := range EventNames() {
		if !slices.ContainsFunc(machine.Facts(), func(f machine.Fact) bool { return string(wordings[f].event) == name }) {
			t.Errorf("no fact is the event %s", name)
		}
	}
}

// reasons has one of each type, and how it reads.
var reasons = map[machine.Reason]string{
	machine.Said("hello"): "hello",
	machine.Both{First: machine.HasFailed, Second: machine.Said("hello")}: "failed; hello",
	machine.GraceStopping: "grace is stopping",
	machine.TooManyRestarts{Limit: machine.RestartLimit{Restarts: 5, Within: time.Minute}}: "5 restarts within 1m0s (--restart-limit)",
	machine.Exit{Code: 3}:                                           "exit status 3",
	machine.Exit{Signal: 9}:                                         "signal: killed",
	machine.Exit{Unknown: true}:                                     "exit status unknown",
	machine.Exit{NotRun: "no room"}:                                 "no room",
	machine.InstanceExited{Exit: machine.Exit{Code: 3}}:             "instance ended: exit status 3",
	machine.NotReadyInTime{Instance: 2, PID: 7, After: time.Minute}: "instance 2 (pid 7) was not ready within 1m0s",
	machine.NotReadyInTime{Instance: 2, PID: 7, After: time.Minute, More: machine.Said("nothing waits on web")}: "instance 2 (pid 7) was not ready within 1m0s: nothing waits on web",
	machine.RequestsInFlight{Requests: 3}:                                   "3 requests in flight in the app's last report",
	machine.InFlightWhenCounted{Connections: 3}:                             "3 connections in flight when last counted",
	machine.EndedOtherwise{Instance: 2, Exit: machine.Exit{Code: 1}}:        "instance 2 ended: exit status 1",
	machine.StoppedInFlight{Connections: 3}:                                 "stopped, with 3 connections in flight when last counted",
	machine.KilledInFlight{Connections: 3}:                                  "killed, with 3 connections in flight when last counted",
	machine.StopsWhenIdleOr{After: time.Minute}:                             "the stop signal comes once the connections are idle, or, after 1m0s (--empty), once the connections in its queue are accepted",
	machine.CheckFailed{Why: machine.Said("exit status 1: slow")}:           "--canary-check failed: exit status 1: slow",
	machine.InstancesBeyond{To: 0, Most: 1000}:                              "0 instances cannot be: use a number from 1 to 1000",
	machine.OlderThan{Age: time.Hour}:                                       "the instance has served for 1h0m0s (--max-age)",
	machine.TooManyDrain{Generations: 2}:                                    "2 old generations still draining (--max-draining)",
	machine.NotSteered{Generation: 2, Why: machine.NoAnswer}:                "cannot send new connections to generation 2: the kernel has not answered in time",
	machine.RunsTheSame{Generation: 2, Executable: "/bin/app", Dir: "/srv"}: "the new generation runs the same executable in the same directory as generation 2: /bin/app in /srv",
	machine.RestartPolicy{Restart: machine.RestartNever}:                    "--restart never",
	machine.ShutDownBy{}:                                                    "an app shut the listener down; connections in its queue were reset",
	machine.ShutDownBy{Generation: 2}:                                       "generation 2, which is draining, shut the listener down; connections in its queue were reset",
	machine.ShutDownBy{Generation: 2, Ended: true}:                          "generation 2, which has just ended, shut the listener down; connections in its queue were reset",
	machine.NothingListens{Address: "[::]:80"}:                              "nothing listens on [::]:80",
	machine.ConnectionEnds{Left: 3}:                                         "closed by their clients: 3",
	machine.ConnectionEnds{Left: 3, Relayed: 2, Expired: 4, Cut: 1}:         "closed by their clients: 3; last request answered by the new generation: 2; closed by grace without a last request: 4; cut by the app: 1",
	machine.CaptureRefused{Why: "no right"}:                                 "no right (" + capturesRemedy + ")",
}

func TestEveryReasonHasWords(t *testing.T) {
	tried := map[string]bool{"LeftBehind": true}
	for why, want := range reasons {
		tried[reflect.TypeOf(why).Name()] = true
		if got := reasonText(why); got != want {
			t.Errorf("%T%+v reads %q, not %q", why, why, got, want)
		}
	}
	left := machine.LeftBehind{Rest: []machine.Leftover{{PID: 7, Command: "sleep", Told: true}, {PID: 8, Command: "tail"}}}
	if got := reasonText(left); got != "pid 7 (sleep), pid 8 (tail, which finishes by itself)" {
		t.Errorf("what is left behind reads %q", got)
	}
	if got := reasonText(nil); got != "" {
		t.Errorf("no reason reads %q", got)
	}
	for _, name := range reasonTypes(t) {
		if !tried[name] {
			t.Errorf("it is not tried how machine.%s reads", name)
		}
	}
	for _, cause := range machine.Causes() {
		if reasonText(cause) == "" {
			t.Errorf("cause %d has no words", cause)
		}
	}
}

// reasonTypes are all that the machine's source has.
func reasonTypes(t *testing.T) (names []string) {
	t.Helper()
	files, err := filepath.Glob("machine/*.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("the machine's source: %v, %v", files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, text, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range parsed.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Name.Name == "isReason" {
				names = append(names, f.Recv.List[0].Type.(*ast.Ident).Name)
			}
		}
	}
	return names
}
