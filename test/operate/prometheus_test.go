package operate

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/gracerun/grace/internal/freeport"
	"github.com/gracerun/grace/internal/requirement"
	"github.com/gracerun/grace/test/harness"
)

// prometheus is a real one that scrapes one grace process, and knows the rules of docs/alerts.yml.
type prometheus struct {
	t       *testing.T
	address string
}

func startPrometheus(t *testing.T, target string) *prometheus {
	t.Helper()
	_, err := exec.LookPath("prometheus")
	requirement.Check(t, "prometheus", err)
	dir, p := t.TempDir(), &prometheus{t, freeport.Address(t)}
	config := fmt.Sprintf("global: {scrape_interval: 200ms, evaluation_interval: 200ms}\nrule_files: [%q]\nscrape_configs:\n- {job_name: app, static_configs: [{targets: [%q]}]}\n",
		harness.Source(t, "docs/alerts.yml"), target)
	if err := os.WriteFile(filepath.Join(dir, "prometheus.yml"), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	runtime.LockOSThread() // for Pdeathsig, which comes when the thread ends
	c := exec.CommandContext(ctx, "prometheus", "--config.file="+dir+"/prometheus.yml", "--storage.tsdb.path="+dir+"/data", "--web.listen-address="+p.address)
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var said strings.Builder
	c.Stderr = &said
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = c.Wait() // it was killed
		if t.Failed() {
			t.Log(said.String())
		}
	})
	harness.Until(t, "Prometheus answers", func() bool { return p.ask("/-/ready", nil) == nil })
	return p
}

// ask reads an answer of Prometheus' HTTP interface.
func (p *prometheus) ask(path string, data any) error {
	response, err := http.Get("http://" + p.address + path)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK || data == nil {
		return statusError(response)
	}
	return json.NewDecoder(response.Body).Decode(data)
}

func statusError(response *http.Response) error {
	if response.StatusCode == http.StatusOK {
		return nil
	}
	return fmt.Errorf("%s", response.Status)
}

// series is how many series an expression has now.
func (p *prometheus) series(expression string) (int, error) {
	var answer struct {
		Data struct{ Result []json.RawMessage }
	}
	err := p.ask("/api/v1/query?query="+url.QueryEscape(expression), &answer)
	return len(answer.Data.Result), err
}

// awaitSeries: what is scraped comes a moment later.
func (p *prometheus) awaitSeries(expression string) {
	p.t.Helper()
	harness.Until(p.t, "there is "+expression, func() bool {
		n, err := p.series(expression)
		if err != nil {
			p.t.Fatalf("%s: %v", expression, err)
		}
		return n > 0
	})
}

func (p *prometheus) unhealthyRules() (names []string, err error) {
	var answer struct {
		Data struct {
			Groups []struct {
				Rules []struct{ Name, Health, LastError string }
			}
		}
	}
	err = p.ask("/api/v1/rules", &answer)
	for _, group := range answer.Data.Groups {
		for _, rule := range group.Rules {
			if rule.Health != "ok" {
				names = append(names, rule.Name+" "+rule.Health+" "+rule.LastError)
			}
		}
	}
	if len(answer.Data.Groups) == 0 {
		names = append(names, "there are no rules")
	}
	return names, err
}

// expressions are those of the panels and annotations of docs/grafana.json, with what Grafana puts in.
func expressions(t *testing.T) (all []string) {
	t.Helper()
	text, err := os.ReadFile(harness.Source(t, "docs/grafana.json"))
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Annotations struct{ List []struct{ Expr string } }
		Panels      []struct {
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	values := strings.NewReplacer("$job", ".*", "$instance", ".*", "$__rate_interval", "1m", "$__range", "1m")
	for _, a := range dashboard.Annotations.List {
		all = append(all, values.Replace(a.Expr))
	}
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			all = append(all, values.Replace(target.Expr))
		}
	}
	return all
}

// A real Prometheus understands the metrics, the alerts, and what the dashboard asks for.
func TestPrometheusScrapes(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, "--listen", "web=127.0.0.1:0", "--metrics", "127.0.0.1:0", "--", harness.AppBinary())
	s.AwaitReady(1)
	p := startPrometheus(t, s.AwaitMessage("serving metrics").Address)
	p.awaitSeries(`grace_generation == 1`)
	s.Upgrade(2)
	p.awaitSeries(`grace_generation == 2`)
	p.awaitSeries(`increase(grace_upgrades_total{result="upgraded"}[1m]) > 0`)
	asked := expressions(t)
	if len(asked) < 10 {
		t.Errorf("the dashboard asks for %d expressions only", len(asked))
	}
	for _, expression := range slices.Compact(asked) {
		p.awaitSeries(expression)
	}
	harness.Until(t, "all alerts were evaluated", func() bool {
		unhealthy, err := p.unhealthyRules()
		if err != nil {
			t.Fatal(err)
		}
		return len(unhealthy) == 0
	})
	s.Signal(syscall.SIGTERM)
	s.Ends(0)
}
