package strategy

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/gracerun/grace/cmd/load"
	"github.com/gracerun/grace/internal/freeport"
	"github.com/gracerun/grace/supervisor/control"
	"github.com/gracerun/grace/test/harness"
)

// app is one that a grace process runs, which can be killed and started again.
type app struct {
	*harness.KilledGrace
	addr string
	own  []string // how the app is told its address
}

// kinds are the ways in which an app gets its sockets: what grace is told, and what the app is.
var kinds = map[string]func(addr string) (flags, own []string){
	"held": func(addr string) (flags, own []string) { return []string{"--listen", "web=" + addr}, nil },
	"steered": func(addr string) (flags, own []string) {
		return []string{"--listen", "web=" + addr + "?steer=true"}, nil
	},
	"captured": func(addr string) (flags, own []string) { return nil, []string{"-addr", addr} },
}

// steeredKinds have sockets of each generation's own.
var steeredKinds = []string{"steered", "captured"}

func allKinds() []string { return slices.Sorted(maps.Keys(kinds)) }

// start runs the app with flags of its own, by a grace process with these flags.
func start(t *testing.T, kind string, flags []string, more ...string) *app {
	t.Helper()
	a := &app{addr: freeport.Address(t)}
	sockets, own := kinds[kind](a.addr)
	a.own = own
	arguments := slices.Concat([]string{"--settle", "50ms", "--empty", "0s", "--farewell", "100ms"}, sockets, flags, []string{"--"}, a.command(more...))
	a.KilledGrace = harness.StartToKill(t, arguments...)
	a.AwaitReady(1)
	return a
}

// command is that of the app, with flags.
func (a *app) command(more ...string) []string {
	return slices.Concat([]string{harness.AppBinary()}, a.own, more)
}

func (a *app) ask(r control.Request) control.Result {
	a.T.Helper()
	c, _ := harness.Client(a.T, a.Name)
	result, _ := harness.Ask(a.T, c, r)
	return result
}

// begin asks for what takes a while. The result is waited for by what it returns.
func (a *app) begin(r control.Request) (await func() control.Result) {
	a.T.Helper()
	c, _ := harness.Client(a.T, a.Name)
	answer, err := c.Ask(a.T.Context(), r)
	if err != nil {
		a.T.Fatalf("%s: %v", r.Do, err)
	}
	return func() control.Result {
		a.T.Helper()
		defer answer.Close()
		result, err := answer.Wait(func(control.Report) {})
		if err != nil {
			a.T.Fatalf("%s: %v", r.Do, err)
		}
		return result
	}
}

func (a *app) status() control.Status {
	a.T.Helper()
	c, _ := harness.Client(a.T, a.Name)
	return harness.Status(a.T, c)
}

// generation is the one with a number; it has none if nothing of that is left.
func (a *app) generation(number int) control.Generation {
	a.T.Helper()
	return find(a.status(), number)
}

func find(s control.Status, generation int) control.Generation {
	for _, g := range s.Generations {
		if g.Number == generation && !g.Batch {
			return g
		}
	}
	return control.Generation{}
}

// want is how an answer has to be.
func (a *app) want(r control.Result, outcome control.Outcome, serving int) {
	a.T.Helper()
	if r.Outcome != outcome || r.Serving != serving {
		a.T.Errorf("the answer is %+v, not %s with generation %d", r, outcome, serving)
	}
}

// underLoad runs do while clients that never retry send requests, on new connections and on kept ones. None may fail.
func (a *app) underLoad(do func()) {
	a.T.Helper()
	clients := map[load.Kind]int{load.NewConnection: 4, load.KeepAliveGet: 2, load.KeepAlivePost: 2, load.Slow: 1, load.Stream: 1}
	harness.UnderLoad(a.T, load.Config{Addr: a.addr, Clients: clients, ThinkMax: 60 * time.Millisecond}, do)
}

// await looks at the status until it is so. A look costs more than others that tests wait by.
func (a *app) await(what string, so func(control.Status) bool) {
	a.T.Helper()
	c, _ := harness.Client(a.T, a.Name)
	harness.Until(a.T, what, func() bool {
		time.Sleep(lookInterval)
		s, err := c.Status(a.T.Context())
		return err == nil && so(s)
	})
}

const lookInterval = 25 * time.Millisecond

// settled waits until one generation serves with as many instances, and nothing else is left.
func (a *app) settled(generation, instances int) {
	a.T.Helper()
	a.await(fmt.Sprintf("%d instances of generation %d serve, and nothing else is left", instances, generation), func(s control.Status) bool {
		serving, running := count(s)
		return s.Current == generation && len(s.Generations) == 1 && serving == instances && running == instances && s.State == "serving"
	})
}

// count is how many instances serve, and how many there are.
func count(s control.Status) (serving, running int) {
	for _, g := range s.Generations {
		for _, i := range g.Instances {
			if i.Phase != "backoff" {
				running++
			}
			if i.Phase == "ready" && !g.Batch && (g.Phase == "current" || g.Phase == "sharing") {
				serving++
			}
		}
	}
	return serving, running
}

// watch looks at the status again and again until it is told to stop.
func (a *app) watch(look func(control.Status)) (stop func()) {
	a.T.Helper()
	t := a.T // the rest of the app is another one's after a kill of grace
	c, _ := harness.Client(t, a.Name)
	over := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		for tick := time.NewTicker(lookInterval); ; {
			select {
			case <-tick.C:
			case <-over:
				tick.Stop()
				return
			}
			if s, err := c.Status(t.Context()); err == nil {
				look(s)
			}
		}
	})
	return func() { close(over); watching.Wait() }
}

// keeps looks for a moment in which fewer instances serve, or more run.
func (a *app) keeps(least, most int) (stop func()) {
	a.T.Helper()
	t, told, looks := a.T, false, 0
	end := a.watch(func(s control.Status) {
		looks++
		if serving, running := count(s); !told && (serving < least || running > most) {
			told = true
			t.Errorf("%d instances serve, and %d run, not at least %d and at most %d: %+v", serving, running, least, most, s.Generations)
		}
	})
	return func() {
		t.Helper()
		if end(); looks == 0 {
			t.Error("nobody has seen the status")
		}
	}
}

// kill ends one process of the app.
func (a *app) kill(pid int) {
	a.T.Helper()
	harness.Kill(a.T, pid)
}
