package supervisor

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gracerun/grace/childproc"
	"github.com/gracerun/grace/supervisor/machine"
)

// Hook is a shell command that is run when something has happened.
type Hook struct {
	On      machine.Fact
	Command string
}

const (
	hooksWaiting = 64
	hookLimit    = 30 * time.Second // for one
	hooksLimit   = 10 * time.Second // for all that are left at the end
	hookOutput   = 4096
)

// hooks run one after another, in the order of what has happened, as the app's user
// and with its environment.
type hooks struct {
	commands []Hook
	launch   *launch
	family   *childproc.Family
	name     string
	post     func(machine.Event)
	waiting  chan occasion
	open     atomic.Int64  // that have not ended
	idle     chan struct{} // gets one when the last of them has
	cancel   context.CancelFunc
	ended    chan struct{}
}

// occasion is one run of a hook.
type occasion struct {
	hook Hook
	env  []string
}

func newHooks(o HostOptions, name string, l *launch, family *childproc.Family, post func(machine.Event)) *hooks {
	ctx, cancel := context.WithCancel(context.Background())
	h := &hooks{
		commands: o.Hooks, launch: l, family: family, name: name, post: post,
		waiting: make(chan occasion, hooksWaiting), idle: make(chan struct{}, 1), cancel: cancel, ended: make(chan struct{}),
	}
	go h.run(ctx)
	return h
}

// hear does not wait: who floods the hooks loses some.
func (h *hooks) hear(_ time.Time, r machine.Report) {
	for _, hook := range h.commands {
		if r.Fact != hook.On {
			continue
		}
		h.open.Add(1)
		select {
		case h.waiting <- occasion{hook, h.facts(r)}:
		default:
			h.leave()
			go h.post(machine.Noticed{Text: "hook left out", Why: fmt.Sprintf("%d others wait already: --on %s", hooksWaiting, hook.On)})
		}
	}
}

func (h *hooks) facts(r machine.Report) []string {
	facts := map[string]string{
		"EVENT": string(r.Fact), "NAME": h.name, "TEXT": r.Text, "WHY": r.Why,
		"GENERATION": number(r.Generation), "INSTANCE": number(r.Instance), "PID": number(r.PID),
		"TOOK": seconds(r.Took), "WITHIN": seconds(r.Within),
	}
	var env []string
	for _, name := range slices.Sorted(maps.Keys(facts)) {
		if facts[name] != "" {
			env = append(env, "GRACE_"+name+"="+facts[name])
		}
	}
	return env
}

func number(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}

func seconds(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return strconv.FormatFloat(d.Seconds(), 'f', 3, 64)
}

// rest tells when none waits or runs.
func (h *hooks) rest() <-chan struct{} {
	rested := make(chan struct{})
	go func() {
		defer close(rested)
		for h.open.Load() > 0 {
			<-h.idle
		}
	}()
	return rested
}

func (h *hooks) run(ctx context.Context) {
	defer close(h.ended)
	for o := range h.waiting {
		if err := h.runOne(ctx, o); err != nil {
			h.post(machine.Noticed{Text: fmt.Sprintf("hook failed: --on %s", o.hook.On), Why: err.Error()})
		}
		h.leave()
	}
}

func (h *hooks) leave() {
	if h.open.Add(-1) > 0 {
		return
	}
	select {
	case h.idle <- struct{}{}:
	default: // nobody has taken the last one: it will do
	}
}

func (h *hooks) runOne(ctx context.Context, o occasion) error {
	ctx, cancel := context.WithTimeout(ctx, hookLimit)
	defer cancel()
	spec := h.launch.shell(o.hook.Command)
	spec.Env = append(spec.Env, o.env...)
	output, exit, err := h.family.Output(ctx, spec, hookOutput)
	said := ""
	if text := strings.TrimSpace(string(output)); text != "" {
		said = ": " + text
	}
	if err != nil {
		return fmt.Errorf("cannot run it to its end: %w%s", err, said)
	}
	if exit.Status() != 0 {
		return fmt.Errorf("%s%s", exit, said)
	}
	return nil
}

// close comes after the loop's end, and lets what waits run for a while.
func (h *hooks) close() {
	close(h.waiting)
	late := time.AfterFunc(hooksLimit, h.cancel)
	<-h.ended
	late.Stop()
	h.cancel()
}
