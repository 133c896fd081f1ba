package host

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/gracerun/grace/supervisor/deadline"
	"github.com/gracerun/grace/supervisor/machine"
)

// examineEvery is between the ends of two runs of --canary-check.
const examineEvery = 5 * time.Second

// Examine runs --canary-check until the generation does not share any more. The command finds both generations' numbers in its
// environment.
func (a *Host) Examine(e machine.Examine) {
	p := a.Launches[e.Generation]
	ctx, cancel := context.WithCancel(p.ctx)
	a.endExamining()
	a.examining = cancel
	l := *p.Launch
	l.Env = append(append([]string{}, l.Env...), "GRACE_CANARY="+strconv.Itoa(e.Generation), "GRACE_GENERATION="+strconv.Itoa(e.Beside))
	go Guard(func() {
		for {
			if why := a.examine(ctx, &l); why != "" && ctx.Err() == nil {
				a.Post(machine.Rejected{Generation: e.Generation, Why: why})
				return
			}
			if pause(ctx, examineEvery) != nil {
				return
			}
		}
	}, func(why string) { a.Post(machine.Rejected{Generation: e.Generation, Why: why}) })()
}

func (a *Host) endExamining() {
	if a.examining != nil {
		a.examining()
		a.examining = nil
	}
}

// examine says why the check has failed.
func (a *Host) examine(ctx context.Context, l *LaunchSpec) string {
	ctx, cancel := deadline.Context(ctx, a.Options.Policy.ReadyTimeout)
	defer cancel()
	output, exit, err := a.Reaper.Output(ctx, l.shell(a.Options.CanaryCheck), checkOutput)
	if err != nil {
		return err.Error()
	}
	if exit.Status() == 0 {
		return ""
	}
	said := strings.TrimSpace(string(output))
	if said == "" {
		return exit.String()
	}
	return fmt.Sprintf("%s: %s", exit, said)
}
