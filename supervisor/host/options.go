package host

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/gracerun/grace/childproc/capture"
	"github.com/gracerun/grace/handoff/socket"
	"github.com/gracerun/grace/supervisor/machine"
)

// Options is what there is to know of the app.
type Options struct {
	Policy  machine.Policy
	Command []string // the app and its arguments
	Listen  []socket.Address
	// Capture says whether grace takes part in the sockets that the app binds itself.
	Capture CaptureMode
	// CaptureUnix are the paths of unix sockets in which grace takes part, from Dir on.
	CaptureUnix []string
	NoNewPrivs  NoNewPrivs
	Evict       bool // end whoever has an address, for development
	Takeover    TakeoverMode
	// TakeoverSignal is what the processes get that are taken over from; 0 is the one on which their program finishes its
	// requests, as far as that is known, and else that of the policy.
	TakeoverSignal syscall.Signal
	Dialects       socket.Dialects
	Keep           time.Duration // how long silent connections of a replaced generation are kept
	Readiness      Readiness
	Liveness       Liveness
	Check          string // a shell command to pass before each upgrade
	CanaryByClient bool   // a client's address decides which generation it comes to; else chance
	CanaryCheck    string // a shell command that has to succeed as long as a generation shares
	MaxMemory      int64  // bytes that an instance may use until a fresh one takes its place; 0: any number
	EnvFile        string
	Dir            string // as written; "" is where grace was started
	unnamed        bool   // Dir is the real name, as nobody has said another one
	User           string // name or number; "" is grace's own
	Group          string
	Umask          int // -1 is grace's own
	Hooks          []Hook
}

// Readiness is how an instance is known to serve.
type Readiness struct {
	Mode  ReadyMode
	URL   string // of a probe by HTTP
	Probe string // a shell command that succeeds once the instance serves
	// Delay is how long an instance must have lived, for ReadyDelay and where
	// ReadyAuto has nothing to look at.
	Delay time.Duration
	// FirstSocket is how long a captured instance may take to open its first
	// socket before it is taken for one that has none.
	FirstSocket time.Duration
}

// CaptureMode says whether grace takes part in the sockets that the app binds itself.
type CaptureMode string

// The capture modes. Auto is on, but beside sockets that grace holds only where that takes no
// right from the app.
const (
	CaptureAuto CaptureMode = "auto"
	CaptureOn   CaptureMode = "on"
	CaptureOff  CaptureMode = "off"
)

// captures reports whether the app's own sockets are wanted.
func (o Options) captures() bool {
	if o.Capture != CaptureAuto || !o.capturesBeside() {
		return o.Capture != CaptureOff
	}
	return o.NoNewPrivs == NoNewPrivsOn || !capture.NeedsNoNewPrivs()
}

// capturesBeside reports whether only what the app opens beside --listen is to be captured, and
// nobody has asked for that: then it must not cost the app a right, nor hold up an upgrade to
// a version that does not open it.
func (o Options) capturesBeside() bool {
	return o.Capture == CaptureAuto && len(o.Listen) > 0 && len(o.CaptureUnix) == 0
}

// NoNewPrivs says whether the app is kept from gaining rights by setuid programs and
// file capabilities, without which an ordinary user cannot capture.
type NoNewPrivs string

// The modes of NoNewPrivs. Auto is on where capturing needs it.
const (
	NoNewPrivsAuto NoNewPrivs = "auto"
	NoNewPrivsOn   NoNewPrivs = "on"
	NoNewPrivsOff  NoNewPrivs = "off"
)

func (n NoNewPrivs) wanted(captures bool) bool {
	return n == NoNewPrivsOn || n == NoNewPrivsAuto && captures && capture.NeedsNoNewPrivs()
}

// ReadyMode is a way to learn that an instance serves.
type ReadyMode string

// The ways to learn it.
const (
	ReadyAuto    ReadyMode = "auto"
	ReadyNotify  ReadyMode = "notify"
	ReadyDelay   ReadyMode = "delay"
	ReadyTCP     ReadyMode = "tcp"
	ReadyHTTP    ReadyMode = "http"
	ReadyCommand ReadyMode = "cmd"
)

// Settled has the directory where the app's paths start made absolute, with the
// links as they were written. It is done once: os.Getwd trusts $PWD only as long
// as its links lead to where the process is.
func (o Options) Settled() (Options, error) {
	dir, err := os.Getwd()
	if err != nil {
		return o, fmt.Errorf("cannot tell the working directory: %w", err)
	}
	o.unnamed = !filepath.IsAbs(o.Dir) && dir != os.Getenv("PWD")
	o.Dir = within(dir, o.Dir)
	if o.Takeover != TakeoverNone {
		o.Listen = steerAll(o.Listen)
	}
	o.Policy = o.policy()
	return o, nil
}

// policy is what was told of it, with what follows from the sockets. Only who has opened the steering knows whether it is Steered.
func (o Options) policy() machine.Policy {
	p := o.Policy
	p.Held = len(o.Listen) > 0
	p.Shared = slices.ContainsFunc(o.Listen, shared)
	p.Examined = o.CanaryCheck != ""
	if o.steersPath() {
		p.OneInstance = machine.OneInstanceOnly
	}
	if !p.Held && o.Capture == CaptureOff {
		p.NoUpgrade = machine.NoSockets
	}
	return p
}

func (o Options) steers() bool {
	return o.captures() || o.Takeover != TakeoverNone || slices.ContainsFunc(o.Listen, steered)
}

func steered(a socket.Address) bool { return a.Steer }

// steersPath reports whether each instance has a unix socket of its own, of which a path leads to one.
func (o Options) steersPath() bool {
	return len(o.CaptureUnix) > 0 || slices.ContainsFunc(o.Listen, func(a socket.Address) bool { return a.Steer && a.Unix() })
}

func shared(a socket.Address) bool { return !a.Steer }

// Validate says what cannot work before anything is touched.
func (o Options) Validate() error {
	p := o.Policy
	switch {
	case p.Instances < 1 || p.Instances > machine.MostInstances:
		return fmt.Errorf("--instances must be from 1 to %d", machine.MostInstances)
	case p.MaxDraining < 1:
		return errors.New("--max-draining must be at least 1")
	case p.ReadyTimeout <= 0 || p.DrainTimeout <= 0:
		return errors.New("--ready-timeout and --drain-timeout must be positive")
	case p.DrainDelay < 0 || p.Watchdog < 0 || o.Readiness.Delay < 0:
		return errors.New("--drain-delay, --watchdog and --ready-delay cannot be negative")
	case p.Settle < 0 || p.Empty < 0 || p.Farewell < 0 || o.Keep < 0:
		return errors.New("--settle, --empty, --farewell and --keep cannot be negative")
	case o.Capture != CaptureAuto && o.Capture != CaptureOn && o.Capture != CaptureOff:
		return fmt.Errorf("--capture %q: use auto, on or off", o.Capture)
	case len(o.CaptureUnix) > 0 && o.Capture == CaptureOff:
		return errors.New("--capture-unix cannot go with --capture off")
	case slices.Contains(o.CaptureUnix, ""):
		return errors.New("--capture-unix needs a path")
	case o.steersPath() && p.Instances > 1:
		return errors.New("a unix path that is steered or captured needs --instances 1: a path leads to one process")
	case o.NoNewPrivs != NoNewPrivsAuto && o.NoNewPrivs != NoNewPrivsOn && o.NoNewPrivs != NoNewPrivsOff:
		return fmt.Errorf("--no-new-privs %q: use auto, on or off", o.NoNewPrivs)
	case p.Restart != machine.RestartOnFailure && p.Restart != machine.RestartAlways && p.Restart != machine.RestartNever:
		return fmt.Errorf("--restart %q: use on-failure, always or never", p.Restart)
	}
	return errors.Join(o.validateTakeover(), o.validateProbe(), o.validateStrategy(), o.Liveness.validate(o, slices.ContainsFunc(o.Listen, shared)))
}

// validateProbe: a shared socket answers for the old generation too.
func (o Options) validateProbe() error {
	r := o.Readiness
	if r.Mode == ReadyCommand && len(o.Listen) > 0 && !strings.Contains(r.Probe, pidPlace) {
		return fmt.Errorf("--ready cmd: with --listen needs %s in the command, the pid of the new instance: otherwise the old generation may answer for it (or use --ready http://, which checks which process answers)", pidPlace)
	}
	if r.Mode == ReadyCommand && r.Probe == "" {
		return errors.New("--ready cmd: has no command")
	}
	return nil
}

// validateStrategy: where generations share a socket the kernel gives each who accepts the clients that it asks for.
func (o Options) validateStrategy() error {
	p := o.Policy
	own := len(o.Listen) > 0 && !slices.ContainsFunc(o.Listen, shared) || len(o.Listen) == 0 && o.Capture != CaptureOff
	const remedy = "needs sockets of each generation's own: write ?steer=true behind the addresses of --listen, or leave --listen out"
	switch {
	case p.KeepWarm < 0 || p.MaxAge < 0:
		return errors.New("--keep-warm and --max-age cannot be negative")
	case len(p.Canary) > 0 && !own:
		return errors.New("--canary " + remedy)
	case p.KeepWarm > 0 && !own:
		return errors.New("--keep-warm " + remedy)
	case len(p.Canary) > 0 && p.MaxSurge.Limited:
		return errors.New("--canary cannot go with --max-surge below 100%: the share of the clients would need as large a share of the instances")
	}
	return nil
}
