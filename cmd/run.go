package cmd

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/gracerun/grace/handoff/socket"
	"github.com/gracerun/grace/supervisor"
	"github.com/gracerun/grace/supervisor/control"
	"github.com/gracerun/grace/supervisor/host"
	"github.com/gracerun/grace/supervisor/machine"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

const runLong = `run starts a server and keeps it running. On SIGHUP it replaces the server: it starts a
new generation with the same sockets, and stops the old one when the new one serves.

Signals:
  HUP                upgrade
  TERM, INT          stop: drain, then exit; a second signal, at least half a second
                     later, stops at once
  QUIT               stop at once
  USR2               replace grace itself
  TTIN, TTOU         one instance more, one less
  USR1, ALRM, 35-64  passed on to the app; WINCH too without a terminal
--signal changes this, and grace signal sends the app any signal.

Exit status:
  0         grace was stopped, or the app exited with 0
  1         grace could not start: a socket, a user or a file is missing or in use
  2         the command line is wrong
  124       the first generation was not ready in time
  126, 127  the command cannot be executed, or was not found
  128+n     signal n ended the app; 137 also if a stop needed KILL
  other     the app's own exit status

Every flag can also be set by an environment variable: --drain-timeout by GRACE_DRAIN_TIMEOUT.
And by a file, with --config: drain-timeout = "1m". Flags win over variables, and these over
the file.`

const runExample = `  grace run -- ./app
  grace run --listen :8080 -- ./app
  grace run --listen web=127.0.0.1:8000 -- uvicorn --fd {fd:web} app:app
  grace run --listen unix:///run/app.sock?mode=0660 -- gunicorn app:app
  grace run --listen :80 --user www-data --instances 4 -- gunicorn app:app
  grace run --listen tcp4://:80 --listen tcp6://:80 --dialect nginx --stop-signal QUIT -- nginx -g 'daemon off;'`

// runFlags are the flags of run.
type runFlags struct {
	listen, dialect                         []string
	ready, check, envFile, dir              string
	restartLimit                            string
	stopSignal, restart, user, group, umask string
	pidFile, logFormat, logLevel            string
	evict, delayGiven, stopGroup            bool
	instances                               instanceCount
	maxDraining                             int
	readyTimeout, readyDelay, drainTimeout  time.Duration
	drainDelay, watchdog, settle, empty     time.Duration
	farewell                                string
	keep                                    time.Duration
	capture, noNewPrivs, name, metrics      string
	adopt, takeover, takeoverSignal         string
	captureUnix                             []string
	canary, maxSurge, canaryBy, canaryCheck string
	keepWarm, maxAge                        time.Duration
	maxMemory, live                         string
	liveInterval, liveTimeout               time.Duration
	liveFailures                            int
	on, signals, watch, watchIgnore         []string
	config                                  string
	fromFile                                []string // flags that --config has set
	commandInFile                           bool
	releaseStatus                           int
}

func newRun() *cobra.Command {
	f := &runFlags{}
	c := &cobra.Command{
		Use:     "run [flags] -- command [argument...]",
		Short:   "Run a server so that it can be replaced without losing a request",
		Long:    runLong,
		Example: runExample,
		RunE: func(c *cobra.Command, command []string) error {
			given := changed(c.Flags())
			o, err := f.read(c.Flags(), command)
			if err != nil {
				return err
			}
			if f.config != "" {
				f.keepForReexec(c.Flags(), given, o.Command)
			}
			return f.run(o)
		},
	}
	f.add(c.Flags())
	c.Flags().SetInterspersed(false)
	return c
}

var errNoCommand = errors.New("no command to run (give it after --, as in: grace run -- ./app)")

func (f *runFlags) add(flags *pflag.FlagSet) {
	f.addSockets(flags)
	f.addLife(flags)
	f.addProcess(flags)
}

func (f *runFlags) addSockets(flags *pflag.FlagSet) {
	flags.StringArrayVar(&f.listen, "listen", nil, "open a listening socket and pass it to the app, as `[NAME=]ADDR`: 8080, 127.0.0.1:8080, tcp://, tcp4://, tcp6://, udp://, unix:///path, unix://@name, unixgram://, or fd://NAME for a socket passed by systemd; options follow a question mark, as in :8080?backlog=1024&keepalive=true; repeatable")
	flags.StringSliceVar(&f.dialect, "dialect", nil, "how the app learns of its sockets: systemd, server-starter, einhorn, nginx, php-fpm, tableflip, stdin, none (default systemd,server-starter)")
	flags.StringVar(&f.capture, "capture", "auto", "capture the TCP listeners that the app opens itself: auto (with --listen only where this does not need no-new-privs), on, off")
	flags.StringArrayVar(&f.captureUnix, "capture-unix", nil, "capture the unix socket that the app binds at this `PATH`, too; repeatable")
	flags.StringVar(&f.takeover, "takeover", "", "replace the server that has the addresses of --listen or of the app, without a lost connection: it becomes generation 0, and is told to stop when the app serves; `force` also replaces one that another supervisor would start again")
	flags.Lookup("takeover").NoOptDefVal = string(host.TakeoverSafe)
	flags.StringVar(&f.takeoverSignal, "takeover-signal", "", "signal that tells the replaced server to stop (default: QUIT, USR1, WINCH or INT for a program known to finish its requests on it, otherwise --stop-signal)")
	flags.StringArrayVar(&f.watch, "watch", nil, "upgrade when a file changes: this `PATH`, or any file below it, but for those that editors and git write beside; repeatable (for development)")
	flags.StringArrayVar(&f.watchIgnore, "watch-ignore", nil, "with --watch: `PATTERN` of files and directories that may change, such as *.log, by their name or their path below the watched directory; repeatable")
	flags.BoolVar(&f.evict, "evict", false, "end the process that holds an address which grace or the app needs (for development)")
}

func (f *runFlags) addLife(flags *pflag.FlagSet) {
	f.instances = instanceCount{"1", 1}
	flags.Var(&f.instances, "instances", "number of instances of the app in a generation, or auto: as many as there are CPUs that affinity and cgroup allow when grace starts")
	flags.StringVar(&f.ready, "ready", "auto", "how grace learns that an instance serves: auto, notify, delay, tcp, http://HOST:PORT/PATH, cmd:COMMAND")
	flags.DurationVar(&f.readyTimeout, "ready-timeout", time.Minute, "how long an instance may take to become ready")
	flags.DurationVar(&f.readyDelay, "ready-delay", time.Second, "how long an instance must run to count as ready, for --ready delay and where auto cannot inspect the app; if not set, a captured app has 10s to open its first socket")
	flags.StringVar(&f.check, "check", "", "shell command that must succeed before an upgrade starts, such as 'nginx -t'")
	flags.StringVar(&f.stopSignal, "stop-signal", "TERM", "signal that tells the app to stop")
	flags.StringArrayVar(&f.signals, "signal", nil, "send the app another signal for one that grace receives, as `RECEIVED=SENT`: USR1=USR2 for an app that wants USR2, by which grace replaces itself; grace gives up its own use of RECEIVED; repeatable")
	flags.BoolVar(&f.stopGroup, "stop-group", false, "send the stop signal to the app's whole process group, for a wrapper that does not pass it on; otherwise the main process gets it, and the processes that it leaves behind get it after its end")
	flags.DurationVar(&f.drainTimeout, "drain-timeout", 30*time.Second, "how long a generation may take to finish (emptying and draining together) before KILL")
	flags.DurationVar(&f.settle, "settle", 2*time.Second, "how long the old generation of a captured app stays ready to take over again if the new generation fails")
	flags.DurationVar(&f.empty, "empty", 0, "how long the old generation of a captured app may finish its connections before it gets the stop signal; 0s for an app that finishes them after the stop signal (default: as long as --drain-timeout allows)")
	flags.StringVar(&f.farewell, "farewell", "auto", "how long clients have to close kept-alive HTTP/1 connections before a generation gets the stop signal: the kernel adds Connection: close to the responses of the app; auto is 1s where grace has the rights (root, or CAP_BPF and CAP_NET_ADMIN), 0s asks no client to close")
	flags.DurationVar(&f.keep, "keep", 90*time.Second, "with --farewell, how long grace keeps an idle connection open after the old generation has closed it; if its client sends a request, the new generation answers it")
	addStrategy(flags, &f.canary, &f.maxSurge, "100%", "all of them at once")
	flags.StringVar(&f.canaryBy, "canary-by", "chance", "what decides which connections a canary gets: chance, or client, so that a client's address stays with one generation")
	flags.StringVar(&f.canaryCheck, "canary-check", "", "shell command that is run every 5s while a generation has a share; if it fails, all clients go back to the old generation (GRACE_CANARY and GRACE_GENERATION are the numbers of both)")
	flags.DurationVar(&f.keepWarm, "keep-warm", 0, "how long the old generation stays after an upgrade, so that grace rollback goes back to it at once")
	flags.DurationVar(&f.maxAge, "max-age", 0, "replace an instance that has served for this long, and up to half as long again, by a fresh one (default: never)")
	flags.StringVar(&f.maxMemory, "max-memory", "", "replace an instance whose processes together use more memory than this `SIZE`, such as 500M or 2G, by a fresh one; pages that they share count once, files in the cache do not (default: no limit)")
	flags.StringVar(&f.live, "live", "", "replace an instance that fails this probe repeatedly by a fresh one: `http://HOST:PORT/PATH`, or cmd:COMMAND with {pid} for the pid of the instance")
	flags.DurationVar(&f.liveInterval, "live-interval", 10*time.Second, "with --live: pause between two probes")
	flags.DurationVar(&f.liveTimeout, "live-timeout", time.Second, "with --live: how long an answer may take")
	flags.IntVar(&f.liveFailures, "live-failures", 3, "with --live: so many failures in a row, and the instance is replaced")
	flags.DurationVar(&f.drainDelay, "drain-delay", 0, "how long to keep serving after grace was told to stop")
	flags.IntVar(&f.maxDraining, "max-draining", 3, "how many old generations may drain at the same time; a further upgrade waits")
	flags.StringVar(&f.restart, "restart", string(machine.RestartOnFailure), "when to restart an instance that served and ended: on-failure, always, never")
	flags.StringVar(&f.restartLimit, "restart-limit", "", "give up after so many restarts within a time, as `N/TIME`, such as 5/1m: grace stops, with the exit status of the instance that ended last (default: no limit)")
	flags.DurationVar(&f.watchdog, "watchdog", 0, "restart an instance that has not sent WATCHDOG=1 for this long (default: no watchdog)")
}

func (f *runFlags) addProcess(flags *pflag.FlagSet) {
	flags.StringVar(&f.config, "config", "", "TOML `FILE` whose keys are flags of this command, and command for the app's command line; it is read once, at the start")
	flags.StringVar(&f.dir, "chdir", "", "working directory; symbolic links in it are resolved again at each upgrade (where no shell has set PWD, as under systemd, this needs --chdir)")
	flags.StringVar(&f.envFile, "env-file", "", "file of NAME=VALUE lines, read again at each upgrade")
	flags.StringVar(&f.user, "user", "", "user to run the app as")
	flags.StringVar(&f.group, "group", "", "group to run the app as")
	flags.StringVar(&f.noNewPrivs, "no-new-privs", "auto", "set no_new_privs, so that setuid programs and file capabilities give the app no rights: auto (where capture needs it), on, off")
	flags.StringVar(&f.umask, "umask", "", "umask of the app, in octal")
	flags.StringVar(&f.adopt, "adopt", string(supervisor.AdoptAuto), "whether to go on with the app of a grace process of the same name that was killed: auto (if there is one), require, never")
	flags.IntVar(&f.releaseStatus, "release-status", 0, "exit status of grace after grace release; under a service manager, which ends or restarts what has ended, one that the unit exempts from this: without it, grace refuses to release the app there")
	flags.StringVar(&f.name, "name", "", "name of this grace process for grace upgrade, status and stop (default: the working directory's name)")
	flags.StringArrayVar(&f.on, "on", nil, "run a shell command at an event, as `EVENT=COMMAND`, where EVENT is one of "+strings.Join(supervisor.EventNames(), ", ")+"; repeatable")
	flags.StringVar(&f.metrics, "metrics", "", "serve /metrics, /healthz and /readyz over HTTP at `ADDR`: 127.0.0.1:9090, unix:///path")
	flags.StringVar(&f.pidFile, "pid-file", "", "file to which grace writes its pid")
	flags.StringVar(&f.logFormat, "log-format", "auto", "format of the log: auto, json or text")
	flags.StringVar(&f.logLevel, "log-level", "info", "lowest level that is logged: debug, info, warn or error")
}

// read takes what the command line has left open from the environment, and what that has from --config.
func (f *runFlags) read(flags *pflag.FlagSet, command []string) (o supervisor.Options, err error) {
	if err := addEnvironment(flags); err != nil {
		return o, err
	}
	file := &configFile{}
	if f.config != "" {
		if file, err = readConfig(f.config); err != nil {
			return o, err
		}
		if f.fromFile, err = file.apply(flags); err != nil {
			return o, err
		}
	}
	if len(command) == 0 {
		command, f.commandInFile = file.command(), true
	}
	if len(command) == 0 || command[0] == "" {
		return o, errNoCommand
	}
	f.delayGiven = flags.Changed("ready-delay")
	if !flags.Changed("empty") {
		f.empty = f.drainTimeout
	}
	o, err = f.options(command)
	return o, file.locate(err, f.fromFile)
}

func changed(flags *pflag.FlagSet) (names []string) {
	flags.Visit(func(f *pflag.Flag) { names = append(names, f.Name) })
	return names
}

// keepForReexec writes what the file has set into the command line by which another grace process is to take over: it shall have
// the same options, whatever is in the file by then.
func (f *runFlags) keepForReexec(flags *pflag.FlagSet, given, command []string) {
	args := []string{os.Args[0], "run"}
	flags.Visit(func(flag *pflag.Flag) {
		if flag.Name != "config" && (slices.Contains(given, flag.Name) || slices.Contains(f.fromFile, flag.Name)) {
			args = append(args, slices.Concat(written(flag)...)...)
		}
	})
	os.Args = append(append(args, "--"), command...)
	os.Unsetenv(variableOf("config"))
}

func (f *runFlags) run(o supervisor.Options) error {
	log, closer, err := newLog(f.logFormat, f.logLevel)
	if err != nil {
		return err
	}
	o.Log = log
	status, err := supervisor.Run(o)
	if next := (*supervisor.Replacement)(nil); errors.As(err, &next) {
		_ = closer.Close() // its error is that the log cannot be written
		return next.Exec()
	}
	if err != nil {
		log.Error().Str("why", err.Error()).Msg("cannot run")
	}
	_ = closer.Close() // its error is that the log cannot be written
	if err != nil {
		status = max(status, 1)
	}
	if status == 0 {
		return nil
	}
	return exitStatus(status)
}

func (f *runFlags) options(command []string) (supervisor.Options, error) {
	o := supervisor.Options{PIDFile: f.pidFile, Name: f.name, Version: version(), Adopt: supervisor.AdoptMode(f.adopt)}
	o.Options = host.Options{
		Command: command, Evict: f.evict, Check: f.check, EnvFile: f.envFile, Dir: f.dir, User: f.user, Group: f.group,
		Capture: host.CaptureMode(f.capture), CaptureUnix: f.captureUnix, NoNewPrivs: host.NoNewPrivs(f.noNewPrivs),
		Keep: f.keep, CanaryCheck: f.canaryCheck, Takeover: host.TakeoverMode(f.takeover),
	}
	o.FileWatch = supervisor.FileWatch{Paths: f.watch, Ignored: f.watchIgnore}
	o.Invocation = slices.Clone(os.Args) // a reexec writes to os.Args (tableflip)
	o.InvokedIn, _ = os.Getwd()          // what has gone cannot be told
	var err error
	for _, written := range f.listen {
		address, failed := socket.ParseAddress(written)
		err = errors.Join(err, about("listen", failed))
		o.Listen = append(o.Listen, address)
	}
	o.Metrics, err = also(err, parseMetrics, f.metrics)
	o.Signals, err = also(err, parseSignals, f.signals)
	o.Hooks, err = also(err, parseHooks, f.on)
	o.Dialects, err = also(err, parseDialects, f.dialect)
	o.Readiness, err = also(err, f.readiness, f.ready)
	o.Liveness, err = also(err, f.liveness, f.live)
	o.Umask, err = also(err, parseUmask, f.umask)
	o.CanaryByClient, err = also(err, parseCanaryBy, f.canaryBy)
	o.MaxMemory, err = also(err, host.ParseMemory, f.maxMemory)
	o.Policy, err = also(err, f.policy, f.stopSignal)
	if f.takeoverSignal != "" {
		o.TakeoverSignal, err = also(err, parseSignal, f.takeoverSignal)
	}
	err = errors.Join(err, checkLog(f.logFormat, f.logLevel))
	if err == nil {
		err = o.Validate()
	}
	return o, err
}

// also parses one more value and joins its error with those before.
func also[In, Out any](before error, parse func(In) (Out, error), in In) (Out, error) {
	out, err := parse(in)
	return out, errors.Join(before, err)
}

func (f *runFlags) policy(stopSignal string) (machine.Policy, error) {
	stop, err := parseSignal(stopSignal)
	farewell, err := also(err, parseFarewell, f.farewell)
	limit, err := also(err, parseRestartLimit, f.restartLimit)
	surge, err := also(err, machine.ParseSurge, f.maxSurge)
	canary, err := also(err, parseCanary, f.canary)
	return machine.Policy{
		MaxSurge: surge, Canary: canary, KeepWarm: f.keepWarm, MaxAge: f.maxAge,
		RestartLimit: limit,
		Instances:    f.instances.n, MaxDraining: f.maxDraining, Restart: machine.Restart(f.restart),
		StopSignal: stop, StopGroup: f.stopGroup, ReadyTimeout: f.readyTimeout, DrainTimeout: f.drainTimeout,
		DrainDelay: f.drainDelay, Farewell: farewell, Settle: f.settle, Empty: f.empty, Watchdog: f.watchdog,
		ReleaseStatus: f.releaseStatus,
	}, errors.Join(err, checkStatus(f.releaseStatus))
}

func checkStatus(status int) error {
	if status < 0 || status > 255 {
		return fmt.Errorf("--release-status %d: an exit status is 0 to 255", status)
	}
	return nil
}

// instanceCount is a flag value: a number, or auto.
type instanceCount struct {
	written string
	n       int
}

// Set implements [pflag.Value].
func (i *instanceCount) Set(text string) error {
	if text == "auto" {
		*i = instanceCount{text, host.CPUs()}
		return nil
	}
	n, err := strconv.ParseInt(text, 0, 32)
	if err != nil {
		return errors.New("use a number or auto")
	}
	*i = instanceCount{strconv.FormatInt(n, 10), int(n)}
	return nil
}

// String implements [pflag.Value].
func (i *instanceCount) String() string { return i.written }

// Type implements [pflag.Value].
func (*instanceCount) Type() string { return "int" }

func parseCanary(written string) ([]machine.CanaryStep, error) {
	if written == "" {
		return nil, nil
	}
	return machine.ParseCanary(written)
}

func parseCanaryBy(written string) (byClient bool, err error) {
	if written != "chance" && written != "client" {
		err = fmt.Errorf("--canary-by %q: use chance or client", written)
	}
	return written == "client", err
}

// autoFarewell: nearly all clients that are about to ask again do so within a second.
const autoFarewell = time.Second

func parseFarewell(written string) (time.Duration, error) {
	if written == "auto" {
		return autoFarewell, nil
	}
	d, err := time.ParseDuration(written)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("--farewell %q: use auto or a time such as 1s", written)
	}
	return d, nil
}

func parseRestartLimit(written string) (machine.RestartLimit, error) {
	if written == "" {
		return machine.RestartLimit{}, nil
	}
	number, within, _ := strings.Cut(written, "/")
	n, err := strconv.Atoi(number)
	d, err2 := time.ParseDuration(within)
	if err != nil || err2 != nil || n < 1 || d <= 0 {
		return machine.RestartLimit{}, fmt.Errorf("--restart-limit %q: write a number of restarts and a time, as in 5/1m (for none: --restart never)", written)
	}
	return machine.RestartLimit{Restarts: n, Within: d}, nil
}

// firstSocket is long enough for programs that start slowly, such as those in Java.
const firstSocket = 10 * time.Second

func (f *runFlags) readiness(written string) (host.Readiness, error) {
	r := host.Readiness{Mode: host.ReadyMode(written), Delay: f.readyDelay, FirstSocket: firstSocket}
	if f.delayGiven {
		r.FirstSocket = f.readyDelay
	}
	if probe, ok := strings.CutPrefix(written, "cmd:"); ok {
		r.Mode, r.Probe = host.ReadyCommand, probe
		return r, nil
	}
	if strings.HasPrefix(written, "http://") {
		r.Mode, r.URL = host.ReadyHTTP, written
		return r, checkURL("--ready", written)
	}
	switch r.Mode {
	case host.ReadyAuto, host.ReadyNotify, host.ReadyDelay, host.ReadyTCP:
		return r, nil
	}
	return r, fmt.Errorf("--ready %q: use auto, notify, delay, tcp, http://HOST:PORT/PATH or cmd:COMMAND", written)
}

func checkURL(flag, written string) error {
	if target, err := url.Parse(written); err != nil || target.Hostname() == "" {
		return fmt.Errorf("%s %q: not an address (write http://HOST:PORT/PATH)", flag, written)
	}
	return nil
}

func (f *runFlags) liveness(written string) (host.Liveness, error) {
	l := host.Liveness{Interval: f.liveInterval, Timeout: f.liveTimeout, Failures: f.liveFailures}
	if command, ok := strings.CutPrefix(written, "cmd:"); ok && strings.TrimSpace(command) != "" {
		l.Command = command
		return l, nil
	}
	if strings.HasPrefix(written, "http://") {
		l.URL = written
		return l, checkURL("--live", written)
	}
	if written != "" {
		return l, fmt.Errorf("--live %q: use http://HOST:PORT/PATH or cmd:COMMAND", written)
	}
	return l, nil
}

func parseDialects(written []string) (socket.Dialects, error) {
	d, err := socket.ParseDialects(written)
	return d, about("dialect", err)
}

func parseMetrics(written string) (*socket.Address, error) {
	if written == "" {
		return nil, nil
	}
	address, err := socket.ParseAddress(written)
	if err != nil {
		return nil, fmt.Errorf("--metrics: %w", err)
	}
	return &address, nil
}

func parseHooks(written []string) ([]host.Hook, error) {
	var hooks []host.Hook
	for _, w := range written {
		event, command, _ := strings.Cut(w, "=")
		if !slices.Contains(supervisor.EventNames(), event) || strings.TrimSpace(command) == "" {
			return nil, fmt.Errorf("--on %q: write EVENT=COMMAND, with one of the events %s", w, strings.Join(supervisor.EventNames(), ", "))
		}
		hooks = append(hooks, host.Hook{On: event, Command: command})
	}
	return hooks, nil
}

func parseSignals(written []string) (supervisor.SignalMap, error) {
	signals := supervisor.SignalMap{}
	for _, w := range written {
		received, sent, _ := strings.Cut(w, "=")
		from, known := control.ParseSignal(received)
		to, known2 := control.ParseSignal(sent)
		if !known || !known2 {
			return nil, fmt.Errorf("--signal %q: write RECEIVED=SENT with two signals, as in USR1=USR2", w)
		}
		if _, twice := signals[from]; twice {
			return nil, fmt.Errorf("--signal %q: %s is mapped twice", w, control.SignalName(from))
		}
		signals[from] = to
	}
	return signals, nil
}

func parseSignal(written string) (syscall.Signal, error) {
	if sig, known := control.ParseSignal(written); known {
		return sig, nil
	}
	return 0, fmt.Errorf("--stop-signal %q: no such signal (write TERM, QUIT, USR1 ...)", written)
}

func parseUmask(written string) (int, error) {
	if written == "" {
		return -1, nil
	}
	mask, err := strconv.ParseUint(written, 8, 9)
	if err != nil {
		return 0, fmt.Errorf("--umask %q: not an octal number such as 027", written)
	}
	return int(mask), nil
}
