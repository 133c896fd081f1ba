package host

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
	On      string // an event
	Command string
}

const (
	hooksWaiting = 64
	hookLimit    = 30 * time.Second // for one
	hooksLimit   = 10 * time.Second // for all that are left at the end
	hookOutput   = 4096
)

// Hooks run one after another, in the order of what has happened, as the app's user
// and with its environment.
type Hooks struct {
	commands []Hook
	launch   *LaunchSpec
	reaper   *childproc.Reaper
	Name     string
	post     func(machine.Event)
	waiting  chan hookRun
	Open     atomic.Int64  // that have not ended
	idle     chan struct{} // gets one when the last of them has
	cancel   context.CancelFunc
	ended    chan struct{}
}

// hookRun is one run of a hook.
type hookRun struct {
	hook Hook
	env  []string
}

func NewHooks(o Options, name string, l *LaunchSpec, reaper *childproc.Reaper, post func(machine.Event)) *Hooks {
	ctx, cancel := context.WithCancel(context.Background())
	h := &Hooks{
		commands: o.Hooks, launch: l, reaper: reaper, Name: name, post: post,
		waiting: make(chan hookRun, hooksWaiting), idle: make(chan struct{}, 1), cancel: cancel, ended: make(chan struct{}),
	}
	go h.run(ctx)
	return h
}

// HookFacts is what a hook is told of what has happened; zero values are left out.
type HookFacts struct {
	Event, Text, Why          string
	Generation, Instance, PID int
	Took, Within              time.Duration
	Share                     float64 // of the new connections, from 0 to 1
	Instances                 int
}

// Run does not wait: who floods the hooks loses some.
func (h *Hooks) Run(f HookFacts) {
	for _, hook := range h.commands {
		if f.Event != hook.On {
			continue
		}
		h.Open.Add(1)
		select {
		case h.waiting <- hookRun{hook, h.environment(f)}:
		default:
			h.leave()
			go h.post(machine.Noticed{Text: fmt.Sprintf("hook skipped: --on %s", hook.On), Why: fmt.Sprintf("%d hooks are waiting to run already", hooksWaiting)})
		}
	}
}

func part(of float64) string {
	if of == 0 {
		return ""
	}
	return strconv.FormatFloat(of, 'f', -1, 64)
}

func (h *Hooks) environment(f HookFacts) []string {
	facts := map[string]string{
		"EVENT": f.Event, "NAME": h.Name, "TEXT": f.Text, "WHY": f.Why,
		"GENERATION": number(f.Generation), "INSTANCE": number(f.Instance), "PID": number(f.PID),
		"TOOK": seconds(f.Took), "WITHIN": seconds(f.Within), "SHARE": part(f.Share), "INSTANCES": number(f.Instances),
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

// Rest tells when none waits or runs.
func (h *Hooks) Rest() <-chan struct{} {
	rested := make(chan struct{})
	go func() {
		defer close(rested)
		for h.Open.Load() > 0 {
			<-h.idle
		}
	}()
	return rested
}

func (h *Hooks) run(ctx context.Context) {
	defer close(h.ended)
	for o := range h.waiting {
		if err := h.runOne(ctx, o); err != nil {
			h.post(machine.Noticed{Text: fmt.Sprintf("hook failed: --on %s", o.hook.On), Why: err.Error()})
		}
		h.leave()
	}
}

func (h *Hooks) leave() {
	if h.Open.Add(-1) > 0 {
		return
	}
	select {
	case h.idle <- struct{}{}:
	default: // nobody has taken the last one: it will do
	}
}

func (h *Hooks) runOne(ctx context.Context, o hookRun) error {
	ctx, cancel := context.WithTimeout(ctx, hookLimit)
	defer cancel()
	spec := h.launch.shell(o.hook.Command)
	spec.Env = append(spec.Env, o.env...)
	output, exit, err := h.reaper.Output(ctx, spec, hookOutput)
	said := ""
	if text := strings.TrimSpace(string(output)); text != "" {
		said = ": " + text
	}
	if err != nil {
		return fmt.Errorf("cannot run the command to its end: %w%s", err, said)
	}
	if exit.Status() != 0 {
		return fmt.Errorf("%s%s", exit, said)
	}
	return nil
}

// Close comes after the loop's end, and lets what waits run for a while.
func (h *Hooks) Close() {
	close(h.waiting)
	late := time.AfterFunc(hooksLimit, h.cancel)
	<-h.ended
	late.Stop()
	h.cancel()
}
