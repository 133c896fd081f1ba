package farewell_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gracerun/grace/cmd/load"
	"github.com/gracerun/grace/internal/freeport"
	"github.com/gracerun/grace/test/harness"
)

// asking is a client of others' making at work, and what it says of its requests.
type asking struct {
	mu       sync.Mutex
	answered int
	failures []string
	stop     func()
	proxied  *load.Load // counts the requests of clients behind a proxy, nil without one
}

func (a *asking) note(failure string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if failure != "" {
		a.failures = append(a.failures, failure)
		return
	}
	a.answered++
}

func (a *asking) result() (answered int, failures []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.answered, slices.Clone(a.failures)
}

// count is of requests until now.
func (a *asking) count() int {
	if a.proxied != nil {
		return int(a.proxied.Snapshot().Requests())
	}
	answered, _ := a.result()
	return answered
}

// realClients ask an address over connections that they keep, and tell each failure. Those that repeat a request of
// themselves say so, and that is a failure too.
var realClients = map[string]func(t *testing.T, at string) *asking{
	"curl": func(t *testing.T, at string) *asking {
		return run(t, `^< HTTP/1.1 200`, `^curl: |retrying`, "curl", "--no-progress-meter", "--verbose", "--fail", "--output", "/dev/null",
			"--rate", "100/s", "http://"+at+"/?[1-1000000]")
	},
	"Node's agent": func(t *testing.T, at string) *asking {
		return run(t, "^answered", "^failed", "node", harness.Testdata(t, "clients/agent.js"), "http://"+at+"/")
	},
	"Python's http.client": func(t *testing.T, at string) *asking {
		return run(t, "^answered", "^failed", "python3", harness.Testdata(t, "clients/client.py"), at)
	},
	"Go's http.Client": goClient,
	"nginx": func(t *testing.T, at string) *asking {
		front, dir := freeport.Address(t), t.TempDir()
		conf := harness.Write(t, dir, "nginx.conf", fmt.Sprintf(nginx, dir, front, at), 0o644)
		return behind(t, front, "nginx", "-p", dir, "-e", "stderr", "-c", conf)
	},
	"haproxy": func(t *testing.T, at string) *asking {
		front := freeport.Address(t)
		return behind(t, front, "haproxy", "-f", harness.Write(t, t.TempDir(), "haproxy.cfg", fmt.Sprintf(haproxy, front, at), 0o644))
	},
}

const nginx = `daemon off; master_process off; pid %[1]s/pid;
events {}
http {
  access_log off;
  client_body_temp_path %[1]s/b; proxy_temp_path %[1]s/p; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
  upstream app { server %[3]s max_fails=0; keepalive 8; }
  server {
    listen %[2]s;
    location / { proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_next_upstream off; }
  }
}
`

const haproxy = `defaults
  mode http
  timeout connect 1m
  timeout client 1m
  timeout server 1m
  retries 0
listen web
  bind %s
  http-reuse always
  server app %s
`

// run starts a program whose lines tell what is answered and what has failed.
func run(t *testing.T, answered, failed string, command ...string) *asking {
	t.Helper()
	harness.Need(t, command[0])
	cmd := exec.Command(command[0], command[1:]...)
	reader, writer := io.Pipe()
	cmd.Stdout, cmd.Stderr = writer, writer
	start(t, cmd)
	a, read := &asking{}, make(chan struct{})
	go func() {
		defer close(read)
		good, bad := regexp.MustCompile(answered), regexp.MustCompile(failed)
		for lines := bufio.NewScanner(reader); lines.Scan(); {
			if line := lines.Text(); bad.MatchString(line) {
				a.note(line)
			} else if good.MatchString(line) {
				a.note("")
			}
		}
	}()
	a.stop = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
		writer.Close()
		<-read
	}
	return a
}

func start(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
}

// behind is a proxy that keeps connections to the app, and clients of the proxy: what it loses they get no answer to.
func behind(t *testing.T, front string, command ...string) *asking {
	t.Helper()
	harness.Need(t, command[0])
	cmd := exec.Command(command[0], command[1:]...)
	start(t, cmd)
	harness.AwaitListener(t, "tcp", front)
	l, err := load.Start(context.Background(), load.Config{Addr: front, Clients: busy, ThinkMax: 20 * time.Millisecond,
		Paths: map[load.Kind]string{load.Slow: "/slow?for=300ms"}})
	if err != nil {
		t.Fatal(err)
	}
	a := &asking{proxied: l}
	a.stop = func() {
		tally := l.Stop()
		a.answered = int(tally.Requests() - tally.Failures())
		for _, f := range tally.First {
			a.note(f.String())
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	return a
}

// goClient: net/http repeats a request on another connection if one was closed.
func goClient(t *testing.T, at string) *asking {
	ctx, cancel := context.WithCancel(context.Background())
	a, client := &asking{}, &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 4}}
	var running sync.WaitGroup
	for range 4 {
		running.Go(func() {
			for ctx.Err() == nil {
				a.note(getOnce(client, "http://"+at+"/"))
				time.Sleep(5 * time.Millisecond) // between requests, as users do
			}
		})
	}
	a.stop = func() {
		cancel()
		running.Wait()
		client.CloseIdleConnections()
	}
	t.Cleanup(cancel)
	return a
}

func getOnce(client *http.Client, url string) (failure string) {
	connections := 0
	ctx := httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connections++ }})
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err.Error()
	}
	answer, err := client.Do(request)
	if err != nil {
		return err.Error()
	}
	defer answer.Body.Close()
	if _, err := io.Copy(io.Discard, answer.Body); err != nil {
		return err.Error()
	}
	if answer.StatusCode != http.StatusOK || connections > 1 {
		return fmt.Sprintf("%s, sent on %d connections", answer.Status, connections)
	}
	return ""
}

func TestRealClientsLoseNothing(t *testing.T) {
	needFarewell(t)
	for name, begin := range realClients {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, _, at := startNamed(t, own, "--settle", "50ms", "--farewell", "10s")
			client := begin(t, at)
			for generation := 2; generation <= 4; generation++ {
				client.awaitMore(t)
				s.Upgrade(generation)
				s.AwaitDrained()
			}
			client.stop()
			s.Stop()
			answered, failures := client.result()
			if answered == 0 || len(failures) > 0 {
				t.Errorf("%d requests were answered; failures: %q", answered, failures)
			}
			t.Logf("%d requests were answered", answered)
			for generation := 1; generation <= 3; generation++ {
				if e := s.AwaitGeneration(ended, generation); !strings.Contains(e.Why, "closed by their clients") {
					t.Errorf("generation %d: %s", generation, e.Why)
				}
			}
		})
	}
}

// awaitMore waits until the client has had answers of the generation that serves.
func (a *asking) awaitMore(t *testing.T) {
	t.Helper()
	before := a.count()
	harness.Until(t, "the client is answered", func() bool { return a.count() > before+10 })
}
