package host

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/gracerun/grace/childproc"
	"github.com/gracerun/grace/handoff/sockdiag"
	"github.com/gracerun/grace/supervisor/machine"
)

// Liveness is how an instance that serves is known to work; the zero value asks nothing.
type Liveness struct {
	URL      string // of a probe by HTTP
	Command  string // a shell command that succeeds as long as the instance works
	Interval time.Duration
	Timeout  time.Duration
	Failures int // so many in a row, and the instance is replaced
}

func (l Liveness) wanted() bool { return l.URL != "" || l.Command != "" }

// livenessProbe asks one instance again and again. It belongs to one goroutine.
type livenessProbe struct {
	prober
	options Liveness
	failed  int    // times in a row
	told    string // why nothing can be known
}

func newLivenessProbe(a *Host, app *InstanceProcess) *livenessProbe {
	return &livenessProbe{prober: prober{a, app, app.serving, app.launch}, options: a.Options.Liveness}
}

func (p *livenessProbe) watch() {
	for p.pause(p.options.Interval) == nil {
		began := time.Now()
		failure, unknown := p.ask()
		switch {
		case p.ctx.Err() != nil:
			return
		case time.Since(began) > 2*p.options.Timeout+time.Second: // grace itself was held up
		case unknown != "":
			p.say(unknown)
		default:
			p.judge(failure)
		}
	}
}

func (p *livenessProbe) judge(failure string) {
	if failure == "" {
		p.failed = 0
		return
	}
	if p.failed++; p.failed >= p.options.Failures {
		p.apps.Post(machine.Unfit{Instance: p.app.start.Instance, Why: fmt.Sprintf("--live failed %d times in a row: %s", p.failed, failure), Hangs: true})
	}
}

func (p *livenessProbe) say(unknown string) {
	if unknown != p.told {
		p.told = unknown
		p.apps.Post(machine.Noticed{Text: "cannot tell whether an instance works", Why: fmt.Sprintf("instance %d: %s", p.app.start.Instance, unknown)})
	}
}

// ask gives how the instance has failed, or why that cannot be known, which is no failure of its own.
func (p *livenessProbe) ask() (failure, unknown string) {
	ctx, cancel := context.WithTimeout(p.ctx, p.options.Timeout)
	defer cancel()
	if p.options.Command != "" {
		return p.run(ctx, p.options.Command), ""
	}
	target, err := url.Parse(p.options.URL)
	if err != nil {
		return "", err.Error()
	}
	conn, failure, unknown := p.connect(ctx, hostPort(target))
	if conn == nil {
		return failure, unknown
	}
	defer conn.Close()
	return ask(ctx, conn, target), ""
}

// connect gives a connection that comes to the instance. At a socket that others have too it is one that the instance has
// accepted, as far as it accepts any: where others are faster there is nothing to be known.
func (p *livenessProbe) connect(ctx context.Context, addr string) (conn net.Conn, failure, unknown string) {
	for range mostProbes {
		conn, err := p.dial(ctx, addr)
		switch {
		case childproc.Shortage(err):
			return nil, "", err.Error()
		case err != nil:
			return nil, "the probe was not accepted: " + err.Error(), ""
		case len(p.apps.Listeners) == 0:
			return conn, "", ""
		}
		inode, err := p.acceptor(ctx, conn)
		switch {
		case err != nil:
			conn.Close()
			return nil, "", err.Error()
		case inode == 0:
			conn.Close()
			return nil, fmt.Sprintf("the probe's connection was not accepted within %s", p.options.Timeout), ""
		}
		if unknown = p.notOwner(inode); unknown == "" {
			return conn, "", ""
		}
		defer conn.Close()
	}
	return nil, "", unknown
}

// acceptor is 0 where nobody accepts the connection in time. To ask costs more the more sockets there are, so the pauses grow.
func (p *livenessProbe) acceptor(ctx context.Context, conn net.Conn) (inode uint64, err error) {
	for wait := time.Millisecond; ; wait *= 2 {
		if inode, err = sockdiag.Acceptor(conn); inode != 0 || err != nil || pause(ctx, wait) != nil {
			return inode, err
		}
	}
}

// validate: at a socket that others have too, they would answer for the instance.
func (l Liveness) validate(o Options, shared bool) error {
	several := o.Policy.Instances > 1
	switch {
	case !l.wanted():
		return nil
	case l.Interval <= 0 || l.Timeout <= 0 || l.Failures < 1:
		return fmt.Errorf("--live-interval and --live-timeout must be positive, and --live-failures at least 1")
	case l.URL != "" && several && shared:
		return fmt.Errorf("--live http://: with several instances at one socket nobody can tell which of them answers (write ?steer=true behind the addresses of --listen, leave --listen out, or use --live cmd: with %s)", pidPlace)
	case l.Command != "" && several && !strings.Contains(l.Command, pidPlace):
		return fmt.Errorf("--live cmd: with several instances needs %s in the command, the pid of the instance: otherwise another one may answer for it", pidPlace)
	}
	return nil
}
