package host

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gracerun/grace/childproc"
	"github.com/gracerun/grace/handoff/sockdiag"
)

const (
	probeTimeout = 5 * time.Second
	probePause   = 20 * time.Millisecond
	acceptWait   = 50 * time.Millisecond
	mostProbes   = 16
)

// pidPlace is what a probe's command has instead of the candidate's pid.
const pidPlace = "{pid}"

// prober asks one instance, until ctx ends.
type prober struct {
	apps   *Host
	app    *InstanceProcess
	ctx    context.Context
	launch *LaunchSpec
}

// pid is the main process as it is now: a daemon's is another one than was
// started.
func (v *prober) pid() int { return v.app.mainPID() }

func (v *prober) pause(d time.Duration) error { return pause(v.ctx, d) }

// probed asks again and again until the answer is a good one.
func (v *readinessCheck) probed() bool {
	for attempt := 0; ; attempt++ {
		why := v.probe(attempt)
		if why == "" {
			return true
		}
		v.say(why)
		if v.pause(probePause) != nil {
			return false
		}
	}
}

// probe gives the reason why the instance is not ready, or nothing if it is.
func (v *readinessCheck) probe(attempt int) string {
	ctx, cancel := context.WithTimeout(v.ctx, probeTimeout)
	defer cancel()
	if v.apps.Options.Readiness.Mode == ReadyCommand {
		return v.run(ctx, v.apps.Options.Readiness.Probe)
	}
	if v.apps.Options.Readiness.Mode == ReadyTCP {
		return v.probeAll(ctx, min(1+attempt, mostProbes))
	}
	return v.probeHTTP(ctx, min(1+attempt, mostProbes))
}

// probeAll wants a connection to be accepted on every socket of the instance: an
// accept loop that runs takes it from the queue.
func (v *readinessCheck) probeAll(ctx context.Context, connections int) string {
	sockets := slices.DeleteFunc(v.sockets(), func(s awaitedSocket) bool { return s.address == "" })
	if missing := v.unopened(sockets); len(missing) > 0 {
		return "no process of the app listens on " + strings.Join(missing, ", ")
	}
	if len(sockets) == 0 {
		return "the app listens on no TCP address"
	}
	for _, s := range sockets {
		conn, why := v.reach(ctx, reachable(s.address), connections)
		if why != "" {
			return why
		}
		conn.Close()
	}
	return ""
}

// reachable is an address to connect to for one that listens everywhere.
func reachable(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if ip := net.ParseIP(host); err == nil && ip != nil && ip.IsUnspecified() {
		if ip.To4() != nil {
			return net.JoinHostPort("127.0.0.1", port)
		}
		return net.JoinHostPort("::1", port)
	}
	return addr
}

func (v *prober) run(ctx context.Context, command string) string {
	spec := v.launch.shell(strings.ReplaceAll(command, pidPlace, strconv.Itoa(v.pid())))
	output, exit, err := v.apps.Reaper.Output(ctx, spec, checkOutput)
	if err != nil {
		return "the probe did not end: " + err.Error()
	}
	if exit.Status() != 0 {
		return fmt.Sprintf("the probe failed (%s): %s", exit, strings.TrimSpace(string(output)))
	}
	return ""
}

// probeHTTP asks on a connection that the instance itself has accepted: on a shared
// socket the old generation accepts too.
func (v *readinessCheck) probeHTTP(ctx context.Context, connections int) string {
	target, err := url.Parse(v.apps.Options.Readiness.URL)
	if err != nil {
		return err.Error()
	}
	conn, why := v.reach(ctx, hostPort(target), connections)
	if why != "" {
		return why
	}
	defer conn.Close()
	return ask(ctx, conn, target)
}

// reach opens connections until the instance has accepted one, and gives that. On
// a steered address the first one goes to it.
func (v *readinessCheck) reach(ctx context.Context, addr string, connections int) (conn net.Conn, why string) {
	why = "the probe was not tried"
	for range connections {
		conn, err := v.dial(ctx, addr)
		if err != nil {
			return nil, "the probe was not accepted: " + err.Error()
		}
		if why = v.notAccepted(ctx, conn); why == "" {
			return conn, ""
		}
		defer conn.Close()
	}
	return nil, why
}

func (v *prober) dial(ctx context.Context, addr string) (net.Conn, error) {
	if v.apps.Steering == nil {
		return new(net.Dialer).DialContext(ctx, "tcp", addr)
	}
	return v.apps.Steering.Dial(ctx, v.app.member(), addr)
}

func hostPort(target *url.URL) string {
	if target.Port() == "" {
		return net.JoinHostPort(target.Hostname(), "80")
	}
	return target.Host
}

// notAccepted says why a connection is not one that the instance accepted.
func (v *readinessCheck) notAccepted(ctx context.Context, conn net.Conn) string {
	deadline := time.Now().Add(acceptWait)
	for time.Now().Before(deadline) && ctx.Err() == nil {
		inode, err := sockdiag.Acceptor(conn)
		if err != nil {
			return "cannot tell which process answers the probe: " + err.Error()
		}
		if inode != 0 {
			return v.notOwner(inode)
		}
		if v.pause(time.Millisecond) != nil {
			break
		}
	}
	return "the probe's connection was not accepted"
}

func (v *prober) notOwner(inode uint64) string {
	pids, err := v.apps.Reaper.Tree(v.pid())
	if err != nil {
		return "the instance has ended"
	}
	owner, err := childproc.Owner(inode, pids)
	if err != nil {
		return "cannot tell which process answers the probe: " + err.Error()
	}
	if owner == 0 {
		return "another process accepted the probe's connection"
	}
	return ""
}

func ask(ctx context.Context, conn net.Conn, target *url.URL) string {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return err.Error()
	}
	request.Close = true
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return err.Error()
		}
	}
	if err := request.Write(conn); err != nil {
		return "the probe got no answer: " + err.Error()
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), request)
	if err != nil {
		return "the probe got no answer: " + err.Error()
	}
	defer response.Body.Close()
	if response.StatusCode < 200 || response.StatusCode > 399 {
		return "the probe was answered with " + response.Status
	}
	return ""
}
