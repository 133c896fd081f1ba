package demo

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gracerun/grace/cmd/load"
	"github.com/gracerun/grace/handoff/farewell"
	"github.com/gracerun/grace/internal/gracelog"
)

// perform does a short demo with a pretended grace.
func perform(t *testing.T, ctx context.Context, how string, o options) (*record, error) {
	t.Helper()
	t.Setenv(behaviour, how)
	o.plain = true
	return o.perform(ctx)
}

var short3 = options{upgrades: 3, duration: 500 * time.Millisecond, clients: 5, slow: 50 * time.Millisecond}

func TestDemoOfAGoodGrace(t *testing.T) {
	r, err := perform(t, t.Context(), "", short3)
	if err != nil || r.failed() || !r.complete() {
		t.Fatalf("%v\n%s", err, r.summary(err))
	}
	for n, u := range r.upgrades {
		if u.replaced != n+1 || u.by != n+2 || u.answered <= 0 || u.gone <= 0 || u.began < r.interval()*time.Duration(n+1) {
			t.Errorf("upgrade %d: %+v", n, u)
		}
	}
	for _, m := range mix {
		if r.tally.Requests(m.kind) == 0 {
			t.Errorf("no request of kind %s", m.kind)
		}
	}
	if len(r.moments) != r.columns {
		t.Errorf("the picture has %d columns", len(r.moments))
	}
	if r.tally.Latency(load.During).TotalCount() == 0 || r.tally.Latency(load.Outside).TotalCount() == 0 {
		t.Errorf("a phase has no requests: %v", r.tally)
	}
}

// Its requests count as the others do. What is missing for it is said, and is no failure.
func TestPlainAppBeside(t *testing.T) {
	o := short3
	o.beside = true
	r, err := perform(t, t.Context(), "", o)
	if err != nil || r.failed() {
		t.Fatalf("%v\n%s", err, r.summary(err))
	}
	if why := farewell.Supported(); why != nil {
		if r.beside.why == "" || !strings.Contains(r.summary(nil), "There is no plain app beside") {
			t.Errorf("%v is not said in\n%s", why, r.summary(nil))
		}
		return
	}
	plain := r.beside.tally.Requests()
	if plain == 0 || r.requests() != r.tally.Requests()+plain || !strings.Contains(r.summary(nil), "plain app, GET") {
		t.Errorf("%d requests\n%s", plain, r.summary(nil))
	}
}

func TestRequestThatThePlainAppLosesIsAFailure(t *testing.T) {
	r, err := perform(t, t.Context(), "", short3)
	r.beside.tally = load.Tally{Kinds: map[load.Kind]*load.Counts{load.KeepAliveGet: {Requests: 2, Failed: map[load.Failure]uint64{load.Reset: 1}}}}
	if err != nil || !r.failed() || !strings.Contains(r.summary(nil), "1 failed") {
		t.Errorf("%v\n%s", err, r.summary(nil))
	}
}

func TestDemosThatFail(t *testing.T) {
	tests := []struct {
		how      string
		upgrades int
		err      string
		shown    []string
	}{
		{"ends at start", 0, "before the app was ready", []string{"first generation failed: no luck"}},
		{"ends at an upgrade", 1, "during the demo", []string{"panic: out of luck", "did not come to its end"}},
		{"fails upgrades", 3, "", []string{"upgrade 3: upgrade failed, generation 1 still serves: no luck"}},
		{"refuses upgrades", 3, "", []string{"upgrade 1: upgrade refused: no luck"}},
		{"busy", 3, "", []string{"bad status", "503 Service Unavailable", "failed."}},
	}
	for _, test := range tests {
		t.Run(test.how, func(t *testing.T) {
			r, err := perform(t, t.Context(), test.how, short3)
			if (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
				t.Errorf("error %v", err)
			}
			if err == nil && !r.failed() {
				t.Error("nothing failed")
			}
			if len(r.upgrades) != test.upgrades {
				t.Errorf("%d upgrades", len(r.upgrades))
			}
			for _, want := range test.shown {
				if summary := r.summary(err); !strings.Contains(summary, want) {
					t.Errorf("%q is missing in\n%s", want, summary)
				}
			}
		})
	}
}

func TestInterruptedDemoLeavesNothing(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	r, err := perform(t, ctx, "", options{upgrades: 1, duration: time.Hour, clients: 5})
	if err != errInterrupted || r.failed() {
		t.Errorf("%v, %v", err, r.tally)
	}
	if text := r.summary(err); !strings.Contains(text, "interrupted") {
		t.Errorf("not said in\n%s", text)
	}
}

func TestCalmReturnsWhenNoUpgradeIsUnderWay(t *testing.T) {
	server := httptest.NewServer(Handler("1"))
	defer server.Close()
	l, err := load.Start(t.Context(), load.Config{Addr: server.Listener.Addr().String(), Clients: map[load.Kind]int{load.KeepAliveGet: 1}})
	if err != nil {
		t.Fatal(err)
	}
	s := &show{record: sample(), load: l, view: lines{io.Discard}}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	grows := func(phase load.Phase) {
		t.Helper()
		for was := l.Snapshot(); l.Snapshot().Latency(phase).TotalCount() < was.Latency(phase).TotalCount()+5; {
			if ctx.Err() != nil {
				t.Fatalf("no requests in phase %v", phase)
			}
		}
	}
	last := s.record.upgrades[2]
	last.gone = 0
	l.Mark(load.During)
	s.upgraded(last)
	grows(load.During)
	last.gone = time.Second
	s.upgraded(last)
	grows(load.Outside)
	l.Stop()
}

func TestLastWordsAreHeard(t *testing.T) {
	log := make(chan gracelog.Entry, 1)
	log <- gracelog.Entry{Text: "panic: oops"}
	close(log)
	s := &show{record: sample(), grace: &gracelog.Process{Log: log}}
	s.lastWords()
	if len(s.complaints) != 1 {
		t.Errorf("complaints: %q", s.complaints)
	}
}

func TestStopKnowsHowGraceEnded(t *testing.T) {
	t.Setenv(behaviour, "")
	g, err := startGrace()
	if err != nil {
		t.Fatal(err)
	}
	for e := range g.Log {
		if e.Message == "generation ready" {
			break
		}
	}
	if err := g.Stop(stopPatience); err != nil {
		t.Error(err)
	}
	if g.Cmd.ProcessState == nil {
		t.Error("it was not waited for")
	}
}

func TestFlags(t *testing.T) {
	for args, want := range map[string]string{
		"--upgrades -1":   "negative",
		"--duration 10ms": "at least 1s",
		"--clients 4":     "at least 5",
		"more":            "unknown command",
	} {
		c := Command()
		c.SetArgs(strings.Fields(args))
		c.SilenceUsage, c.SilenceErrors = true, true
		err := c.Execute()
		var ended Ended
		if err == nil || errors.As(err, &ended) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", args, err)
		}
	}
}

func TestDivideUsesEveryClient(t *testing.T) {
	for clients := len(mix); clients < 300; clients++ {
		sum := 0
		for _, m := range mix {
			count := divide(clients)[m.kind]
			if count < 1 {
				t.Errorf("%d clients: %d of %s", clients, count, m.kind)
			}
			sum += count
		}
		if sum != clients {
			t.Errorf("%d clients became %d", clients, sum)
		}
	}
}

func TestLogLines(t *testing.T) {
	s := &show{record: sample()}
	s.heed(gracelog.Parse([]byte(`{"level":"info","generation":3,"message":"generation ready"}`)))
	s.heed(gracelog.Parse([]byte("panic: oops")))
	if !slices.Equal(s.complaints, []string{"panic: oops"}) {
		t.Errorf("%q", s.complaints)
	}
}

func TestDue(t *testing.T) {
	second := time.Second
	for name, tt := range map[string]struct {
		elapsed       time.Duration
		upgrades      []*upgrade
		due, complete bool
	}{
		"at the start":              {0, nil, false, false},
		"at the first one's time":   {second, nil, true, false},
		"waiting for an answer":     {2 * second, []*upgrade{{by: 2}}, false, false},
		"answered, still draining":  {2 * second, []*upgrade{{answered: 1}}, true, false},
		"too early for another":     {2*second - 1, []*upgrade{{answered: 1, gone: 1}}, false, false},
		"after a failed one":        {2 * second, []*upgrade{{failed: "x"}}, true, false},
		"all done before the end":   {2 * second, []*upgrade{{failed: "x"}, {answered: 1, gone: 1}}, false, false},
		"the last one still drains": {3 * second, []*upgrade{{failed: "x"}, {answered: 1}}, false, false},
		"at the end":                {3 * second, []*upgrade{{failed: "x"}, {answered: 1, gone: 1}}, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRecord(options{upgrades: 2, duration: 3 * second})
			r.elapsed, r.upgrades = tt.elapsed, tt.upgrades
			if r.due() != tt.due || r.complete() != tt.complete {
				t.Errorf("due %v, complete %v", r.due(), r.complete())
			}
		})
	}
}

func TestPlainLines(t *testing.T) {
	var out bytes.Buffer
	r := sample()
	lines{&out}.upgraded(r, r.upgrades[0])
	if text := out.String(); !strings.Contains(text, "upgrade 1: generation 2 answered after 21 ms") || strings.Contains(text, "\x1b") || strings.Count(text, "\n") != 1 {
		t.Errorf("%q", text)
	}
}
