package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/gracerun/grace/cmd/load"
	"github.com/gracerun/grace/internal/hostinfo"
)

// farewellRun is how servers are measured that know nothing of grace, and whose clients keep their connections.
type farewellRun struct {
	servers                  string
	upgrades, without, plain int
	busy, moderate, silent   int
	pace                     float64
	cost                     int
	against                  string
}

func farewellFlags(args []string) (r farewellRun, chosenOnes []server, err error) {
	set := flag.NewFlagSet("farewell", flag.ContinueOnError)
	set.StringVar(&r.servers, "servers", "all", "which `servers` are measured, separated by commas, or all or none")
	set.IntVar(&r.upgrades, "upgrades", 50, "how often grace upgrades each")
	set.IntVar(&r.without, "without", 10, "how often it does with --farewell 0s")
	set.IntVar(&r.plain, "plain", 5, "how often each is replaced by a stop signal and a start, without grace")
	set.IntVar(&r.busy, "busy", 200, "clients that pause for 0.1 to 0.3 s")
	set.IntVar(&r.moderate, "moderate", 1000, "clients that pause for 0.5 to 1.5 s")
	set.IntVar(&r.silent, "silent", 10000, "clients that pause for 5 to 25 s")
	set.Float64Var(&r.pace, "pace", 1, "what the pauses are multiplied with, for slow servers")
	set.IntVar(&r.cost, "cost", 0, "how often the CPU and the memory of grace for a farewell are measured")
	set.StringVar(&r.against, "against", "", "another grace `program`, which is measured beside with --cost")
	if err := set.Parse(args); err != nil {
		return r, nil, err
	}
	chosenOnes, err = chosen(r.servers)
	return r, chosenOnes, err
}

// farewell goes on with the next server when one cannot be measured.
func (b bench) farewell(r farewellRun, servers []server) {
	fmt.Println(machine())
	for _, s := range servers {
		fmt.Printf("\n%s, load %s\n", s.name, hostinfo.LoadAverage())
		if err := attempt(func() { r.measure(b, s) }); err != nil {
			fmt.Printf("  not measured: %v\n", err)
		}
	}
	if r.cost > 0 {
		b.cost(r)
	}
	fmt.Printf("\nload %s at the end\n", hostinfo.LoadAverage())
}

// way is one of replacing a server.
type way struct {
	name  string
	times int
	begin func() replaced
}

// replaced is a running server that can be replaced.
type replaced interface {
	// replace calls at for each moment in an upgrade.
	replace(at func(moment))
	// ends says how connections have ended, where that is counted.
	ends() string
	stop()
}

// moment ends a part of an upgrade.
type moment int

const (
	serving moment = iota // the new process has new connections
	told                  // the old one gets the stop signal
	ended                 // the old one has
	over                  // and a while is over
	moments
)

func (r farewellRun) measure(b bench, s server) {
	folder := must(os.MkdirTemp("", "grace-bench-"))
	defer os.RemoveAll(folder)
	address := freeAddress()
	command := must(s.install(folder, address))
	lost := beginTable("replaced by\ttimes\trequests\tfailed\tper upgrade\twhich\tconnections")
	slow := beginTable("latency, ms\tp99: quiet\tstart\tfarewell\tratio\t\tslowest: quiet\tstart\tfarewell\tstop\tafter\tover 250 ms: quiet\tstart\tfarewell\tstop\tafter")
	defer slow.end()
	defer lost.end()
	// With --empty the stop signal does not wait for a second in which none of thousands of clients asks.
	for _, w := range []way{
		{"grace", r.upgrades, func() replaced { return b.underGrace(s, command, "1s", "--empty", "1s") }},
		{"grace --farewell 0s", r.without, func() replaced { return b.underGrace(s, command, "0s", "--drain-timeout", "4s") }},
		{signalName(s.stopSignal()) + " and a start", r.plain, func() replaced { return startPlain(s, command, address) }},
	} {
		if w.times > 0 {
			m := r.often(w, address)
			lost.line("%s\t%d\t%d\t%d\t%.1f\t%s\t%s", w.name, w.times, m.requests, m.failed, float64(m.failed)/float64(w.times), m.kinds(), m.ends)
			slow.line("%s\t%v", w.name, m.latencies())
		}
	}
}

// losses is what was seen while a server was replaced again and again.
type losses struct {
	requests, failed uint64
	byFailure        map[load.Failure]uint64
	ends             string
	quiet            *hdrhistogram.Histogram
	parts            [moments]*hdrhistogram.Histogram
	p99              [2]series // each time: quiet, and in the second of the farewell
}

// rest is between two upgrades; the second half of it is compared with the second of the farewell.
const rest = time.Second

func (r farewellRun) often(w way, address string) *losses {
	s := w.begin()
	defer s.stop()
	m := newLosses()
	c := r.clients(address)
	for n := range w.times {
		slowest := m.once(c, s)
		fmt.Fprintf(os.Stderr, "%s, %d: %d failed, slowest in ms %s, load %s\n", w.name, n+1, c.failures(), slowest, hostinfo.LoadAverage())
	}
	time.Sleep(keptTime)
	m.ends = s.ends()
	c.stop(m)
	return m
}

func newLosses() *losses {
	m := &losses{byFailure: map[load.Failure]uint64{}, quiet: hdrhistogram.New(1, 60_000_000, 3)}
	for i := range m.parts {
		m.parts[i] = hdrhistogram.New(1, 60_000_000, 3)
	}
	return m
}

// keptTime is longer than most kept connections are silent, and shorter than --keep.
const keptTime = 11 * time.Second

// once takes the latencies of each part of an upgrade.
func (m *losses) once(c *clientele, s replaced) (slowest string) {
	time.Sleep(rest / 2)
	c.lap()
	time.Sleep(rest / 2)
	quiet := c.lap()
	m.quiet.Merge(quiet)
	slowest = fmt.Sprintf("%.0f", milliseconds(quiet, 100))
	begun := time.Now()
	s.replace(func(at moment) {
		slowest += fmt.Sprintf(", at %.1f s", time.Since(begun).Seconds())
		part := c.lap()
		m.parts[at].Merge(part)
		slowest += fmt.Sprintf(" %.0f", milliseconds(part, 100))
		if at == told && part.TotalCount() > 0 && quiet.TotalCount() > 0 {
			m.p99[0].add(milliseconds(quiet, 99))
			m.p99[1].add(milliseconds(part, 99))
		}
	})
	return slowest
}

func (m *losses) kinds() string {
	var kinds []string
	for _, f := range load.Failures() {
		if n := m.byFailure[f]; n > 0 {
			kinds = append(kinds, fmt.Sprintf("%d %s", n, f))
		}
	}
	return strings.Join(kinds, ", ")
}

// latencies are cells of a table.
func (m *losses) latencies() string {
	all := append([]*hdrhistogram.Histogram{m.quiet}, m.parts[:]...)
	ratio := "-\t"
	if len(m.p99[0]) > 0 {
		ratio = m.p99[1].over(m.p99[0]).String()
	}
	var slowest, late []string
	for _, h := range all {
		slowest = append(slowest, fmt.Sprintf("%.0f", milliseconds(h, 100)))
		late = append(late, fmt.Sprint(above(h, 250*time.Millisecond)))
	}
	return fmt.Sprintf("%.1f\t%.1f\t%.1f\t%s\t%s\t%s", milliseconds(all[0], 99), milliseconds(all[1], 99), milliseconds(all[2], 99),
		ratio, strings.Join(slowest, "\t"), strings.Join(late, "\t"))
}

func above(h *hdrhistogram.Histogram, limit time.Duration) (sum int64) {
	for _, bar := range h.Distribution() {
		if bar.From > limit.Microseconds() {
			sum += bar.Count
		}
	}
	return sum
}

// clientele is three kinds of clients, half of each send a body.
type clientele struct {
	loads    []*load.Load
	reported atomic.Int64
}

const reports = 20

// report shows the first failures as they come.
func (c *clientele) report(f load.Failed) {
	if c.reported.Add(1) <= reports {
		fmt.Fprintf(os.Stderr, "  %v, connected at %s\n", f, f.On.Opened.Format("15:04:05.000"))
	}
}

func (r farewellRun) clients(address string) *clientele {
	c := &clientele{}
	for n, some := range []struct {
		count    int
		min, max time.Duration
	}{
		{r.silent, 5 * time.Second, 25 * time.Second},
		{r.moderate, 500 * time.Millisecond, 1500 * time.Millisecond},
		{r.busy, 100 * time.Millisecond, 300 * time.Millisecond},
	} {
		ramp := time.Duration(some.count) * time.Millisecond
		c.loads = append(c.loads, must(load.Start(context.Background(), load.Config{
			Addr: address, Answer: "hello\n", Looks: true, Ramp: ramp, Timeout: patience,
			From:     fmt.Sprintf("127.0.0.%d", n+2), // no kind takes the ports of another
			Report:   c.report,
			Paths:    map[load.Kind]string{load.KeepAlivePost: "/"},
			Clients:  map[load.Kind]int{load.KeepAliveGet: some.count / 2, load.KeepAlivePost: some.count - some.count/2},
			ThinkMin: r.paced(some.min), ThinkMax: r.paced(some.max),
		})))
		time.Sleep(ramp)
	}
	time.Sleep(2 * rest)
	return c
}

func (r farewellRun) paced(d time.Duration) time.Duration { return time.Duration(float64(d) * r.pace) }

// lap is what has ended since the last one.
func (c *clientele) lap() *hdrhistogram.Histogram {
	sum := hdrhistogram.New(1, 60_000_000, 3)
	for _, l := range c.loads {
		sum.Merge(l.Lap())
	}
	return sum
}

func (c *clientele) failures() (sum uint64) {
	for _, l := range c.loads {
		sum += l.Snapshot().Failures()
	}
	return sum
}

func (c *clientele) stop(m *losses) {
	for _, l := range c.loads {
		tally := l.Stop()
		m.requests += tally.Requests()
		m.failed += tally.Failures()
		for failure, n := range tally.ByFailure() {
			m.byFailure[failure] += n
		}
	}
}

// graced is a server under grace.
type graced struct {
	*supervised
	off     bool
	metrics string
}

func (b bench) underGrace(s server, command []string, farewell string, flags ...string) *graced {
	metrics := filepath.Join(filepath.Dir(b.grace), "metrics")
	flags = append(flags, "--farewell", farewell, "--metrics", "unix://"+metrics, "--settle", "1s", "--restart", "never",
		"--stop-signal", signalName(s.stopSignal()), "--ready-delay", patience.String())
	g := &graced{b.beginCommand(flags, command...), farewell == "0s", metrics}
	if err := attempt(func() { g.awaitReady() }); err != nil {
		g.stop()
		check(err)
	}
	return g
}

func signalName(s syscall.Signal) string {
	return map[syscall.Signal]string{syscall.SIGTERM: "TERM", syscall.SIGQUIT: "QUIT", syscall.SIGINT: "INT", syscall.SIGWINCH: "WINCH"}[s]
}

// replace takes a second also where there is no farewell, to compare the two.
func (g *graced) replace(at func(moment)) {
	g.hangUp()
	g.awaitReady()
	at(serving)
	if g.off {
		time.Sleep(time.Second)
		at(told)
	} else {
		g.await("generation told to stop", g.generation-1)
		at(told)
	}
	g.awaitEnd()
	at(ended)
	time.Sleep(rest / 2)
	at(over)
}

var endsMetric = regexp.MustCompile(`(?m)^grace_farewell_connections_total\{.*result="(\w+)"\} (\d+)`)

func (g *graced) ends() string {
	var ends []string
	for _, found := range endsMetric.FindAllStringSubmatch(scrape(clientOf(g.metrics)), -1) {
		ends = append(ends, found[2]+" "+found[1])
	}
	return strings.Join(ends, ", ")
}

// plain is a server alone.
type plain struct {
	server
	command []string
	address string
	process *exec.Cmd
	exited  chan struct{}
}

func startPlain(s server, command []string, address string) replaced {
	p := &plain{server: s, command: command, address: address}
	p.start()
	return p
}

func (p *plain) start() {
	p.process, p.exited = exec.Command(p.command[0], p.command[1:]...), make(chan struct{})
	p.process.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	check(p.process.Start())
	go func(c *exec.Cmd, exited chan struct{}) {
		_ = c.Wait()
		close(exited)
	}(p.process, p.exited)
	for begun := time.Now(); time.Since(begun) < patience; time.Sleep(between) {
		if c, err := net.Dial("tcp", p.address); err == nil {
			c.Close()
			return
		}
	}
	check(fmt.Errorf("%s does not serve", p.name))
}

// stopTime is what a stopped server gets before it is killed.
const stopTime = 10 * time.Second

func (p *plain) replace(at func(moment)) {
	p.end()
	at(ended)
	p.start()
	at(serving)
	time.Sleep(rest)
	at(over)
}

func (p *plain) end() {
	_ = p.process.Process.Signal(p.stopSignal())
	select {
	case <-p.exited:
	case <-time.After(stopTime):
	}
	_ = syscall.Kill(-p.process.Process.Pid, syscall.SIGKILL)
	<-p.exited
}

func (p *plain) ends() string { return "" }
func (p *plain) stop()        { _ = syscall.Kill(-p.process.Process.Pid, syscall.SIGKILL); <-p.exited }
