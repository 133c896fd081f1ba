package metrics

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gracerun/grace/supervisor/control"
)

// source answers with what it was given.
type source struct {
	status control.Status
	err    error
}

func (s *source) Snapshot(context.Context) (control.Status, error) { return s.status, s.err }
func (s *source) Status(context.Context) (control.Status, error)   { return s.status, s.err }

// served is a server at a socket that goes on without it.
type served struct {
	*Server
	t      *testing.T
	socket *os.File
	url    string
}

func serve(t *testing.T, c *Counters, s Source) *served {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	socket, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { socket.Close() })
	server := &served{t: t, socket: socket, url: "http://" + l.Addr().String()}
	server.begin(c, s)
	return server
}

func (s *served) begin(c *Counters, source Source) {
	s.t.Helper()
	var err error
	if s.Server, err = Serve(int(s.socket.Fd()), "1.2.3", c, source); err != nil {
		s.t.Fatal(err)
	}
}

func (s *served) get(path string) (int, string) {
	s.t.Helper()
	response, body := s.ask(path, "")
	return response.StatusCode, body
}

// ask wants a format, "" for any.
func (s *served) ask(path, accept string) (*http.Response, string) {
	s.t.Helper()
	request, err := http.NewRequest(http.MethodGet, s.url+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	if accept != "" {
		request.Header.Set("Accept", accept)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		s.t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return response, string(body)
}

func (s *served) close() {
	s.t.Helper()
	if err := s.Close(); err != nil {
		s.t.Error(err)
	}
}

const secret = "hunter2"

// busy is an upgrade under way, of a captured app.
func busy() control.Status {
	twelve, three, one := 12, 3, 1
	return control.Status{
		Name: secret, State: "upgrading", Current: 7, Instances: 3,
		Generations: []control.Generation{
			{Number: 5, Phase: "draining", Instances: []control.Instance{{Phase: "draining", PID: 50}, {Phase: "killing"}}},
			{Number: 6, Phase: "draining", Connections: &one},
			{Number: 7, Phase: "current", Connections: &twelve, Command: []string{secret}, Executable: secret, Dir: secret,
				Instances: []control.Instance{{Phase: "ready", Says: secret}, {Phase: "ready"}, {Phase: "backoff"}}},
			{Number: 8, Phase: "candidate", Connections: &three, Instances: []control.Instance{{Phase: "starting"}}},
			{Number: 9, Phase: "sharing", Share: 0.25},
		},
		Listeners: []control.Listener{
			{Name: "web", Network: "tcp", Address: "[::]:80", Kind: "steered", Generation: 6, Queue: &one, Connections: &three},
			{Name: "web", Network: "tcp", Address: "[::]:80", Kind: "steered", Generation: 7, Queue: &three, Connections: &three},
			{Network: "tcp", Address: "[::]:81", Kind: "captured", Generation: 7, Queue: &twelve},
			{Name: "dns", Network: "udp", Address: "[::]:53", Kind: "held"},
		},
		Upgrades: []control.UpgradeRecord{{Why: secret, Command: []string{secret}}},
	}
}

func TestScrape(t *testing.T) {
	c := NewCounters()
	c.Upgrade(control.Upgraded, 300*time.Millisecond)
	c.Upgrade(control.Upgraded, 20*time.Second)
	c.Upgrade(control.Undone, time.Second)
	c.Drain(2 * time.Second)
	c.Crash()
	c.Restart()
	c.Restart()
	c.Kill()
	c.Replacement("replaced")
	c.Scaling("refused")
	s := serve(t, c, &source{status: busy()})
	defer s.close()
	status, text := s.get("/metrics")
	if status != http.StatusOK {
		t.Fatalf("%d: %s", status, text)
	}
	for _, want := range []string{
		`grace_upgrades_total{result="upgraded"} 2`, `grace_upgrades_total{result="undone"} 1`, `grace_upgrades_total{result="failed"} 0`,
		`grace_upgrade_duration_seconds_bucket{le="0.25"} 0`, `grace_upgrade_duration_seconds_bucket{le="0.5"} 1`,
		`grace_upgrade_duration_seconds_count 2`, `grace_drain_duration_seconds_sum 2`,
		`grace_crashes_total 1`, `grace_restarts_total 2`, `grace_kills_total 1`,
		`grace_ready 1`, `grace_generation 7`, `grace_instances_wanted 3`, `grace_connection_share{phase="current"} 0.75`, `grace_connection_share{phase="sharing"} 0.25`,
		`grace_replacements_total{result="replaced"} 1`, `grace_replacements_total{result="failed"} 0`, `grace_scalings_total{result="refused"} 1`,
		`grace_instances{phase="ready"} 2`, `grace_instances{phase="backoff"} 1`, `grace_instances{phase="starting"} 1`,
		`grace_instances{phase="draining"} 1`, `grace_instances{phase="killing"} 1`,
		`grace_connections{phase="current"} 12`, `grace_connections{phase="candidate"} 3`, `grace_connections{phase="settling"} 0`,
		`grace_listener_connections{address="[::]:80",listener="web"} 6`,
		`grace_queue_length{address="[::]:80",listener="web"} 4`, `grace_queue_length{address="[::]:81",listener=""} 12`,
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("no %s", want)
		}
	}
	for _, not := range []string{secret, `grace_connections{phase="draining"}`, "[::]:53"} {
		if strings.Contains(text, not) {
			t.Errorf("%s is said", not)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
}

// metric is a row of the page, or what is served.
type metric struct{ name, kind, labels, help string }

var (
	row   = regexp.MustCompile("(?m)^\\| `(grace_[a-z_]+)` \\| (gauge|counter|histogram) \\| ([^|]*) \\| (.*) \\|$")
	label = regexp.MustCompile(`[a-z]+="`)
)

// The page has every metric, and none that there is not.
func TestPageHasEveryMetric(t *testing.T) {
	page, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	var listed []metric
	for _, cells := range row.FindAllStringSubmatch(string(page), -1) {
		listed = append(listed, metric{cells[1], cells[2], cells[3], cells[4]})
	}
	s := serve(t, NewCounters(), &source{status: busy()})
	defer s.close()
	_, text := s.get("/metrics")
	for _, m := range exposed(text) {
		if !slices.Contains(listed, m) {
			t.Errorf("not in the page:\n| `%s` | %s | %s | %s |", m.name, m.kind, m.labels, m.help)
		}
		listed = slices.DeleteFunc(listed, func(l metric) bool { return l == m })
	}
	for _, l := range listed {
		t.Errorf("only in the page: %v", l)
	}
	for _, file := range []string{"alerts.yml", "grafana.json"} {
		asks, err := os.ReadFile("../../docs/" + file)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range regexp.MustCompile(`grace_[a-z_]+`).FindAllString(string(asks), -1) {
			if !strings.Contains(text, "\n"+name+"{") && !strings.Contains(text, "\n"+name+" ") {
				t.Errorf("%s asks for %s, which there is not", file, name)
			}
		}
	}
}

// exposed reads the text format.
func exposed(text string) []metric {
	var all []metric
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		last := len(all) - 1
		if help, ok := strings.CutPrefix(line, "# HELP "); ok {
			name, help, _ := strings.Cut(help, " ")
			all = append(all, metric{name: name, help: help})
		} else if kind, ok := strings.CutPrefix(line, "# TYPE "); ok {
			_, all[last].kind, _ = strings.Cut(kind, " ")
		} else if all[last].labels == "" && all[last].kind != "histogram" {
			var labels []string
			for _, l := range label.FindAllString(line, -1) {
				labels = append(labels, "`"+strings.TrimSuffix(l, `="`)+"`")
			}
			all[last].labels = strings.Join(labels, ", ")
		}
	}
	return all
}

func TestHealthAndReadiness(t *testing.T) {
	serves := []control.Generation{{Number: 2, Instances: []control.Instance{{Phase: "backoff"}, {Phase: "ready"}}}}
	for name, c := range map[string]struct {
		source         source
		healthz, ready int
		why            string
	}{
		"serving":   {source{status: control.Status{State: "serving", Current: 2, Generations: serves}}, 200, 200, "ok"},
		"upgrading": {source{status: control.Status{State: "upgrading", Current: 2, Generations: serves}}, 200, 200, "ok"},
		"starting":  {source{status: control.Status{State: "starting", Generations: serves}}, 200, 503, "no generation serves"},
		"stopping":  {source{status: control.Status{State: "stopping", Current: 2, Generations: serves}}, 200, 503, "grace is stopping"},
		"all instances wait for a restart": {source{status: control.Status{State: "serving", Current: 3,
			Generations: append([]control.Generation{{Number: 3, Instances: []control.Instance{{Phase: "backoff"}}}}, serves...)}},
			200, 503, "no generation serves"},
		"hangs": {source{err: errors.New("it hangs")}, 503, 503, "grace does not answer: it hangs"},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, NewCounters(), &c.source)
			defer s.close()
			if status, _ := s.get("/healthz"); status != c.healthz {
				t.Errorf("/healthz: %d", status)
			}
			if status, why := s.get("/readyz"); status != c.ready || why != c.why+"\n" {
				t.Errorf("/readyz: %d %s", status, why)
			}
		})
	}
}

// What was counted can be said without the loop.
func TestScrapeOfAGraceThatHangs(t *testing.T) {
	c := NewCounters()
	c.Crash()
	s := serve(t, c, &source{err: errors.New("it hangs")})
	defer s.close()
	status, text := s.get("/metrics")
	if status != http.StatusOK || !strings.Contains(text, "grace_crashes_total 1\n") || !strings.Contains(text, `version="1.2.3"`) {
		t.Errorf("%d: %s", status, text)
	}
	if strings.Contains(text, "grace_ready") {
		t.Errorf("it says what it cannot know: %s", text)
	}
}

func TestOtherRequests(t *testing.T) {
	s := serve(t, NewCounters(), &source{})
	defer s.close()
	for _, path := range []string{"/", "/metrics/", "/debug/pprof/", "/v1/status"} {
		if status, _ := s.get(path); status != http.StatusNotFound {
			t.Errorf("%s: %d", path, status)
		}
	}
	response, err := http.Post(s.url+"/metrics", "text/plain", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", response.StatusCode)
	}
}

// The socket outlives its server, for the one that comes after.
func TestSocketGoesOn(t *testing.T) {
	c := NewCounters()
	s := serve(t, c, &source{})
	silent, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	fmt.Fprint(silent, "GET /metrics HTT") // and no more: it must not hold the server up
	s.close()
	s.begin(NewCounters(), &source{})
	defer s.close()
	if status, _ := s.get("/healthz"); status != http.StatusOK {
		t.Errorf("%d", status)
	}
}

func TestServeFails(t *testing.T) {
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, fd := range []int{-1, int(file.Fd())} {
		if s, err := Serve(fd, "", NewCounters(), &source{}); err == nil {
			s.Close()
			t.Errorf("%d: no error", fd)
		}
	}
}

// A probe that fails has an orchestrator kill grace, and the app with it.
func TestSilentConnectionsDoNotKeepProbesOut(t *testing.T) {
	s := serve(t, NewCounters(), &source{})
	before := descriptors(t)
	for range 2 * maxConnections {
		conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, "G"); err != nil { // and no more of its request
			t.Fatal(err)
		}
	}
	probe := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: readLimit / 2} // before silence has its own end
	for range 10 {
		response, err := probe.Get(s.url + "/healthz")
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != http.StatusOK {
			t.Errorf("status %s", response.Status)
		}
	}
	if more := descriptors(t) - before; more > 3*maxConnections+10 { // both ends are here
		t.Errorf("%d descriptors are open for %d connections, of which %d may be", more, 2*maxConnections, maxConnections)
	}
}

// descriptors counts what the test has open.
func descriptors(t *testing.T) int {
	t.Helper()
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("what is open cannot be seen: ", err)
	}
	return len(open)
}
