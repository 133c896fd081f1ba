package farewell_test

import (
	"io"
	"strings"
	"syscall"
	"testing"

	"github.com/gracerun/grace/cmd/load"
	"github.com/gracerun/grace/internal/freeport"
	"github.com/gracerun/grace/test/harness"
)

// parting is a generation whose clients leave, up to a phase.
type parting struct {
	*harness.ReexecGrace
	at     string
	app    int // the process of the generation
	silent []*client
	kept   *client // one that goes on asking the generation
	open   harness.Request
}

// phases are how far a farewell has come. Each is one that lasts until the test goes on.
var phases = map[string]struct {
	flags []string
	reach func(p *parting)
	leave func(p *parting) // lets it go on
}{
	"announced": {[]string{"--settle", "2s", "--empty", "1h", "--drain-timeout", "1h"}, func(p *parting) {
		p.AwaitReady(2)
	}, func(p *parting) {
		p.AwaitNth("taken over", 1)
		p.open.Finish()
		p.AwaitGeneration("instance ended", 1)
		p.askSilent()
	}},
	"announced, and requests are open": {[]string{"--settle", "0s", "--empty", "1h", "--drain-timeout", "1h"}, func(p *parting) {
		p.AwaitReady(2)
		p.AwaitGeneration("generation draining", 1)
	}, func(p *parting) {
		p.AwaitNth("taken over", 1)
		p.kept.askUntilTold(p.T) // by the successor
		p.open.Finish()
		p.AwaitGeneration("instance ended", 1)
		p.askSilent() // where HTTP/1 is spoken the successor knows from its predecessor
	}},
	"holding": {[]string{"--settle", "0s", "--empty", "1h", "--drain-timeout", "1h", "--stop-signal", "WINCH"}, func(p *parting) {
		p.open.Finish()
		p.AwaitGeneration("generation told to stop", 1)
	}, func(p *parting) {
		p.AwaitMessage("reexec waits")
		if err := syscall.Kill(p.app, syscall.SIGTERM); err != nil {
			p.T.Fatal(err)
		}
		p.askSilent()
	}},
	"keeping": {[]string{"--settle", "0s", "--empty", "1h", "--drain-timeout", "1h"}, func(p *parting) {
		p.open.Finish()
		p.AwaitGeneration("instance ended", 1)
	}, func(p *parting) {
		p.AwaitMessage("reexec waits")
		p.askSilent()
	}},
}

// askSilent has what is kept be relayed.
func (p *parting) askSilent() {
	p.T.Helper()
	for _, c := range p.silent {
		if generation, closes := c.ask(p.T); generation != "2" || !closes {
			p.T.Errorf("generation %s has answered, closes %t", generation, closes)
		}
	}
	p.silent = nil
}

// tellApps stops the apps where they do not heed the stop signal.
func (p *parting) tellApps() {
	for _, e := range p.Entries() {
		if e.Message == "instance started" {
			_ = syscall.Kill(e.PID, syscall.SIGTERM) // it may have ended
		}
	}
}

// reach begins an upgrade with clients that are silent.
func reach(t *testing.T, phase, way string) *parting {
	t.Helper()
	needFarewell(t)
	at := freeport.Address(t)
	how := phases[phase]
	p := &parting{at: at}
	p.ReexecGrace = harness.StartForReexec(t, way, append(how.flags, "--farewell", "auto", "--keep", "1h", "--", harness.PlainBinary(), at)...)
	p.app = p.AwaitMessage("instance started").PID
	for range 5 {
		c := dial(t, at)
		c.ask(t)
		p.silent = append(p.silent, c)
	}
	p.open = harness.BeginUnanswered(t, at) // nothing is held before it is answered, so that HTTP/1 is seen until then
	p.kept = dial(t, at)
	p.SignalCurrent(syscall.SIGHUP)
	p.kept.askUntilTold(t)
	how.reach(p)
	return p
}

// askUntilUntold: the kernel takes connections out of the map soon after the last process that has it open has ended.
func (c *client) askUntilUntold(t *testing.T) {
	t.Helper()
	harness.Until(t, "answers say no longer that the connection closes", func() bool {
		generation, closes := c.ask(t)
		if generation != "1" {
			t.Errorf("generation %s has answered", generation)
		}
		return !closes
	})
}

// A killed grace process leaves its apps as they are. What its clients send must reach them, or the client must learn that
// nobody is there.
func TestGraceKilled(t *testing.T) {
	for phase := range phases {
		t.Run(phase, func(t *testing.T) {
			p := reach(t, phase, "the same process")
			p.SignalCurrent(syscall.SIGKILL)
			p.Wait()
			for _, c := range p.silent {
				if phase == "keeping" {
					if n, err := c.Read(make([]byte, 1)); err != io.EOF {
						t.Errorf("read %d bytes, %v: nobody has the connection", n, err)
					}
					continue
				}
				c.askUntilUntold(t)
			}
			if phase != "keeping" {
				p.kept.askUntilUntold(t)
			}
			if generation, _ := dial(t, p.at).ask(t); generation != "2" {
				t.Errorf("generation %s answers new clients", generation)
			}
			for _, e := range p.Entries() {
				if e.Message == "instance started" {
					_ = syscall.Kill(-e.PID, syscall.SIGKILL)
				}
			}
		})
	}
}

// A reexec waits until grace has nothing that its successor could not have, and no longer.
func TestReexecInEachPhase(t *testing.T) {
	for phase, how := range phases {
		for _, way := range harness.ReexecWays {
			t.Run(phase+", "+way, func(t *testing.T) {
				p := reach(t, phase, way)
				harness.UnderLoad(t, load.Config{Addr: p.at, Clients: busy}, func() {
					p.SignalCurrent(syscall.SIGUSR2)
					how.leave(p)
					p.AwaitNth("taken over", 1)
					p.Reexecs++
					p.Upgrade(3)
					for _, c := range p.silent {
						c.ask(t)
					}
				})
				p.tellApps()
				p.End()
			})
		}
	}
}

// Those that ask nothing are waited for only for a time: --keep may be much longer.
func TestReexecWaitsForNoSilentClient(t *testing.T) {
	needFarewell(t)
	for _, way := range harness.ReexecWays {
		t.Run(way, func(t *testing.T) {
			s := harness.StartForReexec(t, way, "--keep", "1h", "--drain-timeout", "8s", "--listen", "web=127.0.0.1:0", "--", harness.PlainBinary(), "fd:3")
			silent := keepSilent(t, s.Grace)
			s.Reexec()
			if e := s.AwaitGeneration(ended, 1); !strings.HasSuffix(e.Why, "closed by grace without a last request: 1") {
				t.Errorf("why: %s", e.Why)
			}
			if n, err := silent.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("read %d bytes, %v", n, err)
			}
			s.End()
		})
	}
}
