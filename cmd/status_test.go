package cmd

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gracerun/grace/supervisor/control"
)

func readLines(r io.Reader) <-chan string {
	lines := make(chan string)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(r); s.Scan(); {
			lines <- s.Text()
		}
	}()
	return lines
}

func someStatus() control.Status {
	ago := func(d time.Duration) time.Time { return time.Now().Add(-d).Round(0).UTC() }
	none, twelve := 0, 12
	return control.Status{
		Version: 1, Grace: "v1.2.0", Name: "web", PID: 4242, Started: ago(26*time.Hour + 30*time.Minute), State: "serving", Current: 7, Restarts: 1, Crashes: 2,
		Generations: []control.Generation{
			{Number: 6, Phase: "draining", Since: ago(90 * time.Minute), Command: []string{"./app", "two words"}, Dir: "/srv", Instances: []control.Instance{
				{ID: 8, PID: 4300, Phase: "draining", Since: ago(90 * time.Minute), Memory: 12_345_678, CPU: 3.25, Requests: &twelve},
			}},
			{Number: 7, Phase: "current", Since: ago(49 * time.Hour), Command: []string{"./app"}, Dir: "/srv", Connections: &twelve, Instances: []control.Instance{
				{ID: 9, PID: 4301, Phase: "ready", Since: ago(49 * time.Hour), Says: "all\x1b[31m well"},
				{ID: 10, Slot: 1, Phase: "backoff", Since: ago(49 * time.Hour)},
			}},
		},
		Listeners: []control.Listener{
			{Name: "web", Network: "tcp", Address: "[::]:80", Kind: "held", Queue: &none, Connections: &none},
			{Network: "unix", Address: "/run/x", Kind: "captured", Generation: 7},
		},
		Upgrades: []control.UpgradeRecord{
			{Generation: 6, From: 5, Began: time.Date(2026, 5, 4, 3, 2, 1, 0, time.Local), Took: 0.5, Outcome: control.Failed, Why: "exit status 1\nor so"},
			{Generation: 7, From: 5, Began: time.Date(2026, 5, 4, 3, 2, 9, 0, time.Local), Took: 2, Outcome: control.Upgraded, Rollback: true},
		},
	}
}

const somePicture = `web: serving, generation 7
  pid 4242, up 1d2h, 2 crashes, 1 restart, grace v1.2.0

GENERATION  PHASE     FOR    CONNECTIONS  WAITS FOR       DIRECTORY  COMMAND
6           draining  1h30m               the app to end  /srv       ./app "two words"
7           current   2d1h   12                           /srv       ./app

INSTANCE  GENERATION  PID   PHASE     FOR    REQUESTS  MEMORY   CPU    SAYS
8         6           4300  draining  1h30m  12        12.3 MB  3.2 s  
9         7           4301  ready     2d1h                             all?[31m well
10        7                 backoff   2d1h                             

SOCKET  ADDRESS      KIND      GENERATION  CONNECTIONS  QUEUE
web     tcp [::]:80  held                  0            0
-       unix /run/x  captured  7                        

UPGRADE  BEGAN                TOOK     RESULT       WHY
5 to 6   2026-05-04 03:02:01  0.500 s  failed       exit status 1 or so
5 to 7   2026-05-04 03:02:09  2.0 s    rolled back  
`

func TestStatusIsAPicture(t *testing.T) {
	inPlace(t)
	serve(t, "web", &fake{status: someStatus()})
	if got := say(t, "status"); got != (said{0, somePicture, ""}) {
		t.Errorf("status %d, %s\n%s", got.status, got.err, got.out)
	}
}

func TestStatusOfAGraceThatStarts(t *testing.T) {
	var text strings.Builder
	if err := printStatus(&text, control.Status{Name: "web", PID: 1, State: "starting", Started: time.Now()}, 0); err != nil {
		t.Fatal(err)
	}
	if want := "web: starting\n  pid 1, up 0s, 0 crashes, 0 restarts, grace \n"; text.String() != want {
		t.Errorf("%s", &text)
	}
}

func TestStatusSaysWhoseClientsLeave(t *testing.T) {
	in := func(d time.Duration) *time.Time { at := time.Now().Add(d + 50*time.Millisecond); return &at }
	var text strings.Builder
	if err := printStatus(&text, control.Status{Name: "web", PID: 1, State: "serving", Current: 9, Started: time.Now(), Generations: []control.Generation{
		{Number: 5, Phase: "draining", Since: time.Now(), Until: in(2 * time.Minute)},
		{Number: 6, Phase: "closing", Since: time.Now()},
		{Number: 7, Phase: "closing", Since: time.Now(), Until: in(600 * time.Millisecond)},
		{Number: 8, Phase: "emptying", Since: time.Now(), Until: in(-time.Second)},
		{Number: 9, Phase: "current", Since: time.Now()},
	}, Farewell: &control.Farewell{State: "on", Within: 1, Generations: []control.Closing{
		{Generation: 4, Left: 3, Open: 1, Kept: 1},
		{Generation: 5, Left: 3, Open: 4, Silent: 4, Held: 4},
		{Generation: 7, Left: 3, Open: 14, Busy: 12, Silent: 1, Untold: 1},
	}}}, 0); err != nil {
		t.Fatal(err)
	}
	want := `web: serving, generation 9
  pid 1, up 0s, 0 crashes, 0 restarts, grace 
  farewell on: clients have 1.0 s to close kept-alive connections

GENERATION  PHASE     FOR  WAITS FOR
5           draining  0s   the app to end, 2m0s left
6           closing   0s   requests to be answered
7           closing   0s   12 clients to close their connections, 0.6 s left
8           emptying  0s   connections to be idle
9           current   0s   

FAREWELL      LEFT  OPEN  BUSY  SILENT  HELD  KEPT  NOT ASKED  WAITS FOR
generation 4  3     1     0     0             1                1 kept client to send its last request
generation 5  3     4     0     4       4                      
generation 7  3     14    12    1                   1          
`
	if text.String() != want {
		t.Errorf("%s", &text)
	}
}

func TestStatusSaysWhyThereIsNoFarewell(t *testing.T) {
	for want, f := range map[string]control.Farewell{
		"farewell off\n": {State: "off"},
		"farewell unavailable: operation not permitted?[2J\n": {State: "unavailable", Why: "operation not permitted\x1b[2J"},
	} {
		if got := headline(control.Status{Farewell: &f}, 0); !strings.HasSuffix(got, "\n  "+want) {
			t.Errorf("%q", got)
		}
	}
}

func TestWatchLooksOftenWhileAnUpgradeIsInProgress(t *testing.T) {
	soon, late := time.Now().Add(time.Second), time.Now().Add(time.Hour)
	for name, c := range map[string]struct {
		status control.Status
		want   time.Duration
	}{
		"at rest":       {control.Status{State: "serving", Generations: []control.Generation{{Phase: "current"}}}, watchInterval},
		"long drain":    {control.Status{State: "serving", Generations: []control.Generation{{Phase: "draining", Until: &late}}}, watchInterval},
		"upgrade":       {control.Status{State: "upgrading"}, closeInterval},
		"clients leave": {control.Status{State: "serving", Generations: []control.Generation{{Phase: "closing", Until: &soon}}}, closeInterval},
	} {
		if got := intervalOf(c.status); got != c.want {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func TestStatusAsJSON(t *testing.T) {
	inPlace(t)
	want := someStatus()
	serve(t, "web", &fake{status: want})
	var got control.Status
	printed := say(t, "status", "web", "--json")
	if err := json.Unmarshal([]byte(printed.out), &got); err != nil {
		t.Fatalf("%v: %+v", err, printed)
	}
	for i := range want.Upgrades {
		got.Upgrades[i].Began = got.Upgrades[i].Began.Local()
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestStatusThatCannotBeHad(t *testing.T) {
	inPlace(t)
	serve(t, "web", &fake{refuse: fmt.Errorf("busy")})
	if got := say(t, "status"); got != (said{1, "", "grace: busy\n"}) {
		t.Errorf("%+v", got)
	}
}

// Into a pipe goes one picture after another, until grace has gone.
func TestWatch(t *testing.T) {
	inPlace(t)
	f := &fake{status: control.Status{Name: "web", State: "serving", Current: 1}}
	stop := serve(t, "web", f)
	c := grace("status", "--watch", "--json")
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	lines := readLines(out)
	if first := <-lines; !strings.Contains(first, `"current":1`) {
		t.Errorf("first: %s", first)
	}
	f.mutex.Lock()
	f.status.Current = 2
	f.mutex.Unlock()
	if second := <-lines; !strings.Contains(second, `"current":2`) {
		t.Errorf("second: %s", second)
	}
	stop()
	for range lines {
	}
	if _ = c.Wait(); c.ProcessState.ExitCode() != 1 {
		t.Errorf("it ended with %v", c.ProcessState)
	}
}

func TestList(t *testing.T) {
	dir := inPlace(t)
	s := someStatus()
	s.Name = "cmd-test-list"
	serve(t, s.Name, &fake{status: s})
	serve(t, "cmd-test-mute", &fake{refuse: fmt.Errorf("busy")})
	printed := say(t, "list")
	fields := map[string][]string{}
	for line := range strings.Lines(printed.out) {
		f := strings.Fields(line)
		fields[f[0]] = f[1:]
	}
	if want := []string{"serving", "7", "4242", "1d2h", userName(os.Geteuid()), filepath.Join(dir, s.Name+".sock")}; !slices.Equal(fields[s.Name], want) {
		t.Errorf("%+v", printed)
	}
	if want := []string{"does", "not", "answer", userName(os.Geteuid()), filepath.Join(dir, "cmd-test-mute.sock")}; !slices.Equal(fields["cmd-test-mute"], want) {
		t.Errorf("%+v", printed)
	}
}

func TestListAsJSON(t *testing.T) {
	inPlace(t)
	serve(t, "cmd-test-list", &fake{status: control.Status{Current: 7}})
	var all []listed
	printed := say(t, "list", "--json")
	if err := json.Unmarshal([]byte(printed.out), &all); err != nil {
		t.Fatalf("%v: %+v", err, printed)
	}
	i := slices.IndexFunc(all, func(l listed) bool { return l.Name == "cmd-test-list" })
	if i < 0 || all[i].Status == nil || all[i].Status.Current != 7 || all[i].UID != os.Geteuid() {
		t.Errorf("%+v", printed)
	}
}
