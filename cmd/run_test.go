package cmd

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gracerun/grace/supervisor"
	"github.com/gracerun/grace/supervisor/host"
	"github.com/gracerun/grace/supervisor/machine"
	"github.com/spf13/cobra"
)

func TestBadInput(t *testing.T) {
	for name, c := range map[string]struct {
		flags     []string
		variables []string
		says      string
	}{
		"flag":                   {flags: []string{"--lisen=8080"}, says: "unknown flag: --lisen (did you mean --listen?)"},
		"network":                {flags: []string{"--listen=sctp://:80"}, says: `cannot read listen address "sctp://:80": unknown network "sctp"; accepted are`},
		"port":                   {flags: []string{"--listen=:http"}, says: `the port "http" is not a number`},
		"two bad addresses":      {flags: []string{"--listen=a:b:c", "--listen=unix://x"}, says: "unix:///x"},
		"dialect":                {flags: []string{"--dialect=upstart"}, says: `cannot use dialect "upstart": use one or more of systemd,`},
		"dialects that clash":    {flags: []string{"--dialect=systemd,tableflip"}, says: "tableflip"},
		"readiness":              {flags: []string{"--ready=soon"}, says: `--ready "soon": use auto, notify,`},
		"probe without host":     {flags: []string{"--ready=http:///health"}, says: "write http://HOST:PORT/PATH"},
		"probe without command":  {flags: []string{"--ready=cmd:"}, says: "--ready cmd: has no command"},
		"probe of a shared port": {flags: []string{"--ready=cmd:true", "--listen=127.0.0.1:0"}, says: "the old generation may answer"},
		"signal":                 {flags: []string{"--stop-signal=NOPE"}, says: `--stop-signal "NOPE": no such signal`},
		"signal 0":               {flags: []string{"--stop-signal=0"}, says: `--stop-signal "0": no such signal`},
		"signals without =":      {flags: []string{"--signal=USR1"}, says: `--signal "USR1": write RECEIVED=SENT with two signals`},
		"unknown in signals":     {flags: []string{"--signal=USR1=NOPE"}, says: `--signal "USR1=NOPE": write RECEIVED=SENT`},
		"TERM for the app":       {flags: []string{"--signal=TERM=USR1"}, says: `--signal TERM=USR1: grace needs TERM itself, or cannot receive it`},
		"KILL for grace":         {flags: []string{"--signal=KILL=USR1"}, says: `--signal KILL=USR1: grace needs KILL itself`},
		"KILL for the app":       {flags: []string{"--signal=HUP=KILL"}, says: `--signal HUP=KILL: no app can handle KILL`},
		"a signal twice":         {flags: []string{"--signal=HUP=USR1", "--signal=1=USR2"}, says: `--signal "1=USR2": HUP is mapped twice`},
		"watched, not there":     {flags: []string{"--watch=/no/such/file"}, says: "--watch: lstat /no/such/file: no such file"},
		"ignored, no pattern":    {flags: []string{"--watch-ignore=["}, says: `--watch-ignore: "[" is not a pattern`},
		"restart limit of none":  {flags: []string{"--restart-limit=0/1m"}, says: `--restart-limit "0/1m": write a number of restarts and a time, as in 5/1m`},
		"restart limit, no time": {flags: []string{"--restart-limit=5"}, says: `--restart-limit "5": write`},
		"signal 65":              {flags: []string{"--stop-signal=65"}, says: `--stop-signal "65": no such signal`},
		"umask in words":         {flags: []string{"--umask=u=rw"}, says: `--umask "u=rw": not an octal number`},
		"umask too long":         {flags: []string{"--umask=1000"}, says: `--umask "1000": not an octal number`},
		"no instance":            {flags: []string{"--instances=0"}, says: "--instances must be from 1 to 1000"},
		"instances in words":     {flags: []string{"--instances=two"}, says: `invalid argument "two" for "--instances"`},
		"no draining":            {flags: []string{"--max-draining=0"}, says: "--max-draining must be at least 1"},
		"restart":                {flags: []string{"--restart=maybe"}, says: `--restart "maybe": use on-failure, always or never`},
		"wait without a unit":    {flags: []string{"--drain-timeout=30"}, says: `invalid argument "30" for "--drain-timeout"`},
		"no time to drain":       {flags: []string{"--drain-timeout=0s"}, says: "must be positive"},
		"no time to get ready":   {flags: []string{"--ready-timeout=-1s"}, says: "must be positive"},
		"negative delay":         {flags: []string{"--drain-delay=-1s"}, says: "cannot be negative"},
		"log format":             {flags: []string{"--log-format=xml"}, says: `--log-format "xml": use auto, json or text`},
		"log level":              {flags: []string{"--log-level=loud"}, says: `--log-level "loud": use debug, info, warn or error`},
		"variable":               {variables: []string{"GRACE_INSTANCES=two"}, says: "cannot use GRACE_INSTANCES: "},
		"variable with a value that no flag would take": {variables: []string{"GRACE_RESTART=maybe"}, says: `--restart "maybe"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			trace := filepath.Join(t.TempDir(), "started")
			args := append(append([]string{"run"}, c.flags...), "--", "touch", trace)
			status, said := runGrace(t, c.variables, args...)
			checkRefusal(t, status, said, c.says)
			if _, err := os.Stat(trace); err == nil {
				t.Error("the app was started")
			}
		})
	}
}

func TestBadCommandLine(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		says string
	}{
		"command of grace": {[]string{"rum"}, `unknown command "rum"`},
		"run left out":     {[]string{"./app", "8080"}, `unknown command "./app" for "grace" (to run a server, write grace run -- ./app 8080)`},
		"no command":       {[]string{"run"}, "no command to run (give it after --"},
		"empty command":    {[]string{"run", "--", ""}, "no command to run"},
	} {
		t.Run(name, func(t *testing.T) {
			status, said := runGrace(t, nil, c.args...)
			checkRefusal(t, status, said, c.says)
		})
	}
}

func checkRefusal(t *testing.T, status int, said, want string) {
	t.Helper()
	if status != statusUsage {
		t.Errorf("status %d, want %d", status, statusUsage)
	}
	if !strings.HasPrefix(said, "grace: ") || !strings.Contains(said, want) {
		t.Errorf("said %q, which does not begin with grace: and contain %q", said, want)
	}
}

// optionsOf parses a command line of run without running it.
func optionsOf(t *testing.T, args ...string) (supervisor.Options, error) {
	t.Helper()
	f := &runFlags{}
	var o supervisor.Options
	c := &cobra.Command{
		SilenceErrors: true, SilenceUsage: true,
		RunE: func(_ *cobra.Command, command []string) (err error) {
			o, err = f.options(command)
			return err
		},
	}
	f.add(c.Flags())
	c.SetArgs(args)
	err := c.Execute()
	return o, err
}

func TestOptions(t *testing.T) {
	for name, c := range map[string]struct {
		flags []string
		want  func(supervisor.Options) (got, want any)
	}{
		"default stop signal": {nil, func(o supervisor.Options) (any, any) { return o.Policy.StopSignal, syscall.SIGTERM }},
		"default umask":       {nil, func(o supervisor.Options) (any, any) { return o.Umask, -1 }},
		"default restart":     {nil, func(o supervisor.Options) (any, any) { return o.Policy.Restart, machine.RestartOnFailure }},
		"listen": {[]string{"--listen=8080", "--listen=web=127.0.0.1:80"}, func(o supervisor.Options) (any, any) {
			return []string{o.Listen[0].Addr, o.Listen[1].Name}, []string{":8080", "web"}
		}},
		"instances of all CPUs": {[]string{"--instances=auto"}, func(o supervisor.Options) (any, any) { return o.Policy.Instances, host.CPUs() }},
		"restart limit": {[]string{"--restart-limit=5/1m"}, func(o supervisor.Options) (any, any) {
			return o.Policy.RestartLimit, machine.RestartLimit{Restarts: 5, Within: time.Minute}
		}},
		"signal name":      {[]string{"--stop-signal=quit"}, func(o supervisor.Options) (any, any) { return o.Policy.StopSignal, syscall.SIGQUIT }},
		"signal full name": {[]string{"--stop-signal=SIGUSR1"}, func(o supervisor.Options) (any, any) { return o.Policy.StopSignal, syscall.SIGUSR1 }},
		"signal number":    {[]string{"--stop-signal=34"}, func(o supervisor.Options) (any, any) { return o.Policy.StopSignal, syscall.Signal(34) }},
		"umask":            {[]string{"--umask=027"}, func(o supervisor.Options) (any, any) { return o.Umask, 0o27 }},
		"waits": {[]string{"--ready-timeout=2m", "--drain-timeout=3s", "--drain-delay=4s", "--watchdog=5s"}, func(o supervisor.Options) (any, any) {
			p := o.Policy
			return []time.Duration{p.ReadyTimeout, p.DrainTimeout, p.DrainDelay, p.Watchdog},
				[]time.Duration{2 * time.Minute, 3 * time.Second, 4 * time.Second, 5 * time.Second}
		}},
		"ready by http": {[]string{"--ready=http://127.0.0.1:80/ok"}, func(o supervisor.Options) (any, any) {
			return o.Readiness, host.Readiness{Mode: host.ReadyHTTP, URL: "http://127.0.0.1:80/ok", Delay: time.Second, FirstSocket: 10 * time.Second}
		}},
		"ready by command": {[]string{"--ready=cmd:curl -f localhost", "--ready-delay=2s"}, func(o supervisor.Options) (any, any) {
			return o.Readiness, host.Readiness{Mode: host.ReadyCommand, Probe: "curl -f localhost", Delay: 2 * time.Second, FirstSocket: 10 * time.Second}
		}},
		"ready by notice": {[]string{"--ready=notify"}, func(o supervisor.Options) (any, any) { return o.Readiness.Mode, host.ReadyNotify }},
	} {
		t.Run(name, func(t *testing.T) {
			o, err := optionsOf(t, append(c.flags, "--", "./app", "--flag")...)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := c.want(o); !reflect.DeepEqual(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
			if want := []string{"./app", "--flag"}; !reflect.DeepEqual(o.Command, want) {
				t.Errorf("the command is %q, want %q", o.Command, want)
			}
		})
	}
}

// All that is wrong is said at once.
func TestErrorsAreTold(t *testing.T) {
	_, err := optionsOf(t, "--listen=sctp://:1", "--umask=9", "--stop-signal=NOPE", "--ready=soon", "--", "./app")
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"sctp", "--umask", "--stop-signal", "--ready"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not mention %s", err, want)
		}
	}
}

// Flags after the command are the command's, with and without --.
func TestFlagsOfTheCommand(t *testing.T) {
	seen := filepath.Join(t.TempDir(), "seen")
	status, said := runGrace(t, nil, "run", "--restart=never", "sh", "-c", `echo "$@" >`+seen, "sh", "--listen", "x")
	if got, _ := os.ReadFile(seen); status != 0 || string(got) != "--listen x\n" {
		t.Errorf("status %d, the command saw %q\n%s", status, got, said)
	}
}
