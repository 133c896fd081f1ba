package strategy

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/gracerun/grace/internal/binomial"
	"github.com/gracerun/grace/supervisor/control"
	"github.com/gracerun/grace/test/harness"
)

// answerer is the generation that answers one request on a connection of its own, from a client's address.
func (a *app) answerer(from string) (generation int) {
	a.T.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: dialer.DialContext}, Timeout: harness.Patience}
	response, err := client.Get("http://" + a.addr)
	if err != nil {
		a.T.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		a.T.Fatal(err)
	}
	if _, err := fmt.Sscanf(string(text), "Hello from generation %d.", &generation); err != nil {
		a.T.Fatalf("%q: %v", text, err)
	}
	return generation
}

// draw has clients come, each from its own address, and gives who has answered.
func (a *app) draw(clients int) (by map[string]int) {
	a.T.Helper()
	by = map[string]int{}
	for n := range clients {
		from := fmt.Sprintf("127.0.1.%d", 1+n)
		by[from] = a.answerer(from)
	}
	return by
}

// checkShare draws, and wants the generation to have a part of the clients that is not out of the question.
func (a *app) checkShare(generation int, share float64) (by map[string]int) {
	a.T.Helper()
	clients := 200
	if share == 0 || share == 1 {
		clients = 30
	}
	by = a.draw(clients)
	got := 0
	for _, g := range by {
		if g == generation {
			got++
		}
	}
	if low, high := likely(clients, share); got < low || got > high {
		a.T.Errorf("generation %d got %d of %d connections, not %d to %d", generation, got, clients, low, high)
	}
	return by
}

// likely are the bounds of how many of n come to a share, but for one time in a thousand million at each end.
func likely(n int, share float64) (low, high int) { return binomial.Bounds(n, share, 1e-9) }

// awaitShare waits until the status says so.
func (a *app) awaitShare(generation int, share float64) {
	a.T.Helper()
	a.await(fmt.Sprintf("generation %d has a share of %v", generation, share), func(s control.Status) bool {
		g := find(s, generation)
		return g.Phase == "sharing" && g.Share == share
	})
}

func (a *app) checkPromoted(r control.Result, generation int, share float64) {
	a.T.Helper()
	if r.Outcome != control.Promoted || r.Generation != generation || r.Share != share {
		a.T.Errorf("the answer is %+v, not that generation %d has a share of %v", r, generation, share)
	}
}

// shares looks whether a generation ever has a share that was not said.
func (a *app) shares(said ...float64) (stop func()) {
	a.T.Helper()
	t := a.T
	return a.watch(func(s control.Status) {
		for _, g := range s.Generations {
			if g.Share != 0 && !slices.Contains(said, g.Share) || (g.Phase == "sharing") != (g.Share > 0) {
				t.Errorf("generation %d is %s, with a share of %v", g.Number, g.Phase, g.Share)
			}
		}
	})
}

func TestCanaryGetsItsShares(t *testing.T) {
	for kind, instances := range map[string]int{"captured": 4, "steered": 1} {
		t.Run(fmt.Sprintf("%s, %d", kind, instances), func(t *testing.T) {
			t.Parallel()
			a := start(t, kind, []string{"--instances", fmt.Sprint(instances)})
			a.underLoad(func() {
				stop := a.shares(0.1, 0.5)
				upgraded := a.begin(control.Request{Do: control.Upgrade, Canary: "10%,50%"})
				a.awaitShare(2, 0.1)
				a.checkShare(2, 0.1)
				a.checkPromoted(a.ask(control.Request{Do: control.Promote}), 2, 0.5)
				a.checkShare(2, 0.5)
				a.checkPromoted(a.ask(control.Request{Do: control.Promote}), 2, 1)
				a.checkShare(2, 1)
				a.want(upgraded(), control.Upgraded, 2)
				a.settled(2, instances)
				stop()
			})
			a.End()
		})
	}
}

// A client's address stays with a generation, while the share grows.
func TestCanaryByClient(t *testing.T) {
	for _, kind := range steeredKinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			a := start(t, kind, []string{"--canary-by", "client", "--instances", "2"})
			upgraded := a.begin(control.Request{Do: control.Upgrade, Canary: "20%,60%"})
			a.awaitShare(2, 0.2)
			few := a.checkShare(2, 0.2)
			for from, generation := range few {
				if again := a.answerer(from); again != generation {
					t.Errorf("client %s came to generation %d, and then to %d", from, generation, again)
				}
			}
			a.checkPromoted(a.ask(control.Request{Do: control.Promote}), 2, 0.6)
			for from, generation := range a.checkShare(2, 0.6) {
				if few[from] == 2 && generation != 2 {
					t.Errorf("client %s came to generation 2, and then to %d", from, generation)
				}
			}
			a.checkPromoted(a.ask(control.Request{Do: control.Promote, Fully: true}), 2, 1)
			a.want(upgraded(), control.Upgraded, 2)
			a.End()
		})
	}
}

// Steps with a time follow by themselves, as a flag of grace run also after HUP.
func TestCanaryStepsByTime(t *testing.T) {
	for _, kind := range steeredKinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			a := start(t, kind, []string{"--canary", "5%:200ms,25%:200ms,75%:200ms"})
			a.underLoad(func() {
				stop := a.shares(0.05, 0.25, 0.75)
				a.Signal(syscall.SIGHUP)
				for _, share := range []string{"5 %", "25 %", "75 %"} {
					a.AwaitGeneration("generation gets "+share+" of the new connections", 2)
				}
				a.AwaitGeneration("upgraded", 2)
				a.checkShare(2, 1)
				a.settled(2, 1)
				stop()
			})
			a.End()
		})
	}
}

// In each of these ways all clients go back to the old generation, which has never stopped.
func TestCanaryIsGivenUp(t *testing.T) {
	for _, kind := range steeredKinds {
		for name, end := range map[string]struct {
			loaded bool // no request may be lost; who dies has some
			by     func(a *app, broken string)
			why    string
		}{
			"rollback": {true, func(a *app, _ string) { a.want(a.ask(control.Request{Do: control.Rollback}), control.Upgraded, 1) }, "a rollback was requested"},
			"check":    {true, func(a *app, broken string) { harness.Touch(a.T, broken) }, "it found 2 beside 1"},
			"death":    {false, func(a *app, _ string) { a.kill(a.generation(2).Instances[0].PID) }, "signal: killed"},
		} {
			t.Run(kind+", "+name, func(t *testing.T) {
				t.Parallel()
				broken := filepath.Join(t.TempDir(), "broken")
				check := "test ! -e " + broken + " || { echo it found $GRACE_CANARY beside $GRACE_GENERATION; exit 9; }"
				a := start(t, kind, []string{"--instances", "2", "--canary-check", check})
				before := a.generation(1).Instances
				under := a.underLoad
				if !end.loaded {
					under = func(do func()) { do() }
				}
				under(func() {
					upgraded := a.begin(control.Request{Do: control.Upgrade, Canary: "50%"})
					a.awaitShare(2, 0.5)
					end.by(a, broken)
					if r := upgraded(); r.Outcome != control.Undone || r.Serving != 1 || !strings.Contains(r.Why, end.why) {
						t.Errorf("the answer is %+v, and does not say that the upgrade was undone: %s", r, end.why)
					}
					a.checkShare(2, 0)
					a.settled(1, 2)
				})
				for i, now := range a.generation(1).Instances {
					if now.PID != before[i].PID {
						t.Errorf("instance %d was process %d, and is %d", now.ID, before[i].PID, now.PID)
					}
				}
				a.End()
			})
		}
	}
}

// The share is the same when another grace process has taken over, or has come after one that was killed.
func TestShareStaysWithTheNextGraceProcess(t *testing.T) {
	for kind, by := range map[string]string{"steered": "chance", "captured": "client"} {
		t.Run(kind+", by "+by, func(t *testing.T) {
			t.Parallel()
			a := start(t, kind, []string{"--instances", "2", "--canary-by", by, "--canary", "30%"})
			a.underLoad(func() {
				stop := a.shares(0.3)
				a.Signal(syscall.SIGHUP)
				a.awaitShare(2, 0.3)
				before := a.checkShare(2, 0.3)
				for name, next := range map[string]func(){
					"reexec": func() { a.Command("reexec") },
					"kill":   func() { a.Kill(); a.Again() },
				} {
					next()
					a.awaitShare(2, 0.3)
					for from, generation := range a.checkShare(2, 0.3) {
						if by == "client" && generation != before[from] {
							t.Errorf("after a %s client %s came to generation %d, and not to %d", name, from, generation, before[from])
						}
					}
				}
				stop()
				a.checkPromoted(a.ask(control.Request{Do: control.Promote}), 2, 1)
				a.settled(2, 2)
				a.checkShare(2, 1)
			})
			a.End()
		})
	}
}

func TestCanaryIsGivenUpAfterAKill(t *testing.T) {
	for _, kind := range steeredKinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			a := start(t, kind, []string{"--canary", "30%"})
			a.underLoad(func() {
				a.Signal(syscall.SIGHUP)
				a.awaitShare(2, 0.3)
				a.Kill()
				a.Again()
				a.awaitShare(2, 0.3) // the state may be from before
				a.want(a.ask(control.Request{Do: control.Rollback}), control.Upgraded, 1)
				a.checkShare(2, 0)
				a.settled(1, 1)
			})
			a.End()
		})
	}
}
