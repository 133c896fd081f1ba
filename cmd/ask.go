package cmd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/gracerun/grace/cmd/fold"
	"github.com/gracerun/grace/supervisor"
	"github.com/gracerun/grace/supervisor/control"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"
)

// Exit statuses of the commands that send a request to a grace process.
const (
	statusFailed      = 1
	statusSuperseded  = 3
	statusNoGrace     = 4
	statusTimeout     = 124
	statusInterrupted = 130
)

const whichGrace = `
NAME is a name that grace list shows, or the path of a control socket. Without NAME, it is
the only grace process in $RUNTIME_DIRECTORY, as in the commands of a service, or the only
one that you may control.
`

// tell writes to stderr why the command ends with status.
func tell(status int, format string, values ...any) error {
	fmt.Fprintln(os.Stderr, clean("grace: "+fmt.Sprintf(format, values...)))
	return exitStatus(status)
}

// find finds the grace process that a command names.
func find(args []string) (control.Found, error) {
	name := ""
	if len(args) > 0 {
		name = args[0]
	}
	found, err := control.Find(name)
	if err != nil {
		return found, tell(statusNoGrace, "%v%s", err, abandoned(name))
	}
	return found, nil
}

// abandoned tells of the app of a grace process that was killed.
func abandoned(name string) (text string) {
	if strings.Contains(name, "/") {
		return ""
	}
	for _, a := range supervisor.FindAbandonedApps() {
		if name == "" || a.Name == name {
			text += fmt.Sprintf("\nthe app of %q still runs, without a supervisor: grace process %d was killed\n  %s\nthis command adopts it:\n  cd %s && %s", a.Name, a.Grace, strings.Join(a.Generations, "\n  "), supervisor.ShellQuoted(a.Dir), supervisor.ShellQuoted(a.Command...))
		}
	}
	return text
}

// completeNames offers the names of the running grace processes.
func completeNames(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	// ArgsLenAtDash cannot be used here: cobra adds a -- of its own for completion.
	if slices.Contains(os.Args, "--") {
		return nil, cobra.ShellCompDirectiveDefault
	}
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, found := range control.List() {
		names = append(names, found.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// waitOptions say how long a command waits for the result of its request.
type waitOptions struct {
	noWait  bool
	timeout time.Duration
	begun   bool // grace has accepted the request
}

func (p *waitOptions) add(flags *pflag.FlagSet) {
	flags.BoolVar(&p.noWait, "no-wait", false, "do not wait for the result")
	flags.Var((*span)(&p.timeout), "timeout", "stop waiting after this time; the operation goes on (default: as long as grace itself waits)")
}

// span is a flag value: a duration that is not negative.
type span time.Duration

// Set implements [pflag.Value].
func (s *span) Set(text string) error {
	d, err := time.ParseDuration(text)
	if err == nil && d < 0 {
		err = errors.New("it is negative")
	}
	*s = span(d)
	return err
}

// String implements [pflag.Value]. It is empty for 0, so that the help shows no default.
func (s *span) String() string {
	if *s == 0 {
		return ""
	}
	return time.Duration(*s).String()
}

// Type implements [pflag.Value].
func (*span) Type() string { return "duration" }

// start returns a context that ends with SIGINT, SIGTERM or the timeout.
func (p *waitOptions) start() (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	if p.timeout <= 0 {
		return ctx, stop
	}
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	return ctx, func() { cancel(); stop() }
}

// ask sends one request and waits for its result, which is nil with --no-wait. Pass its errors to explain.
func (p *waitOptions) ask(ctx context.Context, found control.Found, r control.Request) (*control.Result, error) {
	client := control.NewClient(found.Path)
	defer client.Close()
	answer, err := client.Ask(ctx, r)
	if err != nil {
		return nil, err
	}
	defer answer.Close()
	p.begun = true
	if p.noWait {
		fmt.Println(clean(fmt.Sprintf("%s requested from %s", r.Do, found.Name)))
		return nil, nil
	}
	progress := newProgress(os.Stderr, term.IsTerminal(int(os.Stderr.Fd())))
	progress.width = fold.Columns(os.Stderr)
	result, err := answer.Wait(progress.show)
	return &result, err
}

// explain writes why there is no result.
func (p *waitOptions) explain(ctx context.Context, r control.Request, err error) error {
	refused := (*control.RefusedError)(nil)
	switch {
	case errors.As(err, &refused):
		return tell(statusFailed, "%s refused: %s", r.Do, refused.Why)
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return tell(statusTimeout, "%s: no result after %v; %s (see grace status)", r.Do, p.timeout, p.whatOf("it"))
	case ctx.Err() != nil:
		return tell(statusInterrupted, "interrupted; %s (see grace status)", p.whatOf("the "+string(r.Do)))
	}
	return tell(statusFailed, "%s: %v", r.Do, err)
}

// whatOf says whether the request goes on after this command has stopped waiting.
func (p *waitOptions) whatOf(it string) string {
	if p.begun {
		return it + " goes on"
	}
	return "it is not known whether " + it + " was started"
}

// conclude writes how an upgrade or rollback has ended.
func conclude(r control.Result, done string) error {
	switch r.Outcome {
	case control.Upgraded:
		fmt.Printf("%s in %s: generation %d serves%s\n", done, seconds(r.Took), r.Generation, sameness(r, done))
		return nil
	case control.Reexeced:
		return tell(statusFailed, "another grace process has taken over meanwhile; generation %d still gets only a share of the new connections (see grace status)", r.Generation)
	case control.Superseded:
		return tell(statusSuperseded, "superseded%s", because(r.Why))
	case control.Undone:
		return tell(statusFailed, "undone: generation %d served and then failed%s%s", r.Generation, because(r.Why), aftermath(r))
	case control.Failed:
		return tell(statusFailed, "failed: generation %d%s%s", r.Generation, because(r.Why), aftermath(r))
	}
	return tell(statusFailed, "%s%s%s", r.Outcome, because(r.Why), aftermath(r))
}

func sameness(r control.Result, done string) string {
	switch {
	case !r.Unchanged:
		return ""
	case done == rolledBack:
		return " (the same executable in the same directory as before: files that were changed in place stay changed)"
	}
	return " (the same executable in the same directory as before)"
}

func because(why string) string {
	if why == "" {
		return ""
	}
	return ": " + why
}

// aftermath says where the output of the new processes went, and which generation serves.
func aftermath(r control.Result) string {
	text := ""
	if r.Output != "" {
		text += "\n  the output of the new processes went to " + r.Output
	}
	if r.Serving == 0 {
		return text + "\n  no generation serves"
	}
	return text + fmt.Sprintf("\n  generation %d still serves", r.Serving)
}
