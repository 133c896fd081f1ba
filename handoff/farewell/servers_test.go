package farewell

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gracerun/grace/handoff/internal/apptest"
	"github.com/gracerun/grace/internal/requirement"
)

func init() { apptest.Roles["plain"] = servePlain }

func environment(name string) string { return os.Getenv(name) }

// servePlain is an app in Go that has never heard of grace: Shutdown at TERM.
func servePlain() {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, hello) })
	server := &http.Server{Addr: environment("AT"), Handler: mux}
	ending := make(chan os.Signal, 1)
	signal.Notify(ending, syscall.SIGTERM)
	ended := make(chan struct{})
	go func() {
		<-ending
		_ = server.Shutdown(context.Background())
		close(ended)
	}()
	plain := net.ListenConfig{}
	plain.SetMultipathTCP(false)
	listener, err := plain.Listen(context.Background(), "tcp", server.Addr)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	_ = server.Serve(listener)
	<-ended
}

// server is a running one, unmodified.
type server struct {
	command *exec.Cmd
	at      netip.AddrPort
	exited  chan struct{}
}

// kind says how to start a server at host:port; the folder is for its files.
type kind func(at netip.AddrPort, folder string) *exec.Cmd

const python = `
import signal, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class H(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(200)
        self.send_header("Content-Length", "6")
        self.end_headers()
        self.wfile.write(b"hello\n")
    do_POST = do_GET
    def log_message(self, *a): pass
class S(ThreadingHTTPServer):
    request_queue_size = 1024
S((sys.argv[1], int(sys.argv[2])), H).serve_forever()
`

const node = `
const server = require("http").createServer((q, a) => { q.resume(); q.on("end", () => { a.setHeader("Content-Length", 6); a.end("hello\n") }) })
server.keepAliveTimeout = 60000
server.listen(+process.argv[2], process.argv[1], 4096)
process.on("SIGTERM", () => { server.close(); server.closeIdleConnections() })
`

const wsgi = `
def app(environ, start):
    environ["wsgi.input"].read()
    start("200 OK", [("Content-Length", "6")])
    return [b"hello\n"]
`

const asgi = `
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"6")]})
    await send({"type": "http.response.body", "body": b"hello\n"})
`

const java = `
import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;
public class Http {
    public static void main(String[] args) throws Exception {
        HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", Integer.parseInt(args[0])), 4096);
        server.createContext("/", x -> {
            x.getRequestBody().readAllBytes();
            x.sendResponseHeaders(200, 6);
            x.getResponseBody().write("hello\n".getBytes());
            x.close();
        });
        server.setExecutor(java.util.concurrent.Executors.newCachedThreadPool());
        server.start();
    }
}
`

const nginx = `
daemon off; worker_processes 2; error_log %s/error.log; pid %s/pid;
events { worker_connections 12000; }
http {
  access_log off; keepalive_requests 1000000; keepalive_timeout 600;
  client_body_temp_path %s/b; proxy_temp_path %s/p; fastcgi_temp_path %s/f; uwsgi_temp_path %s/u; scgi_temp_path %s/s;
  server { listen %s backlog=4096; location / { return 200 "hello\n"; } }
}
`

var kinds = map[string]kind{
	"go": func(at netip.AddrPort, _ string) *exec.Cmd {
		c := exec.Command("/proc/self/exe")
		c.Env = append(os.Environ(), apptest.RoleVariable+"=plain", "AT="+at.String(), "GORACE=atexit_sleep_ms=0")
		return c
	},
	"python": func(at netip.AddrPort, _ string) *exec.Cmd {
		return exec.Command("python3", "-c", python, at.Addr().String(), port(at))
	},
	"node": func(at netip.AddrPort, _ string) *exec.Cmd {
		return exec.Command("node", "-e", node, at.Addr().String(), port(at))
	},
	"gunicorn": func(at netip.AddrPort, folder string) *exec.Cmd {
		write(folder, "wsgi.py", wsgi)
		return exec.Command("gunicorn", "--chdir", folder, "-b", at.String(), "-k", "gthread", "-w", "2", "--threads", "8",
			"--worker-connections", "4000", "--keep-alive", "60", "--backlog", "4096", "--log-level", "error", "wsgi:app")
	},
	"uvicorn": func(at netip.AddrPort, folder string) *exec.Cmd {
		write(folder, "asgi.py", asgi)
		return exec.Command("uvicorn", "--app-dir", folder, "--host", at.Addr().String(), "--port", port(at), "--log-level", "error",
			"--timeout-keep-alive", "60", "--backlog", "4096", "asgi:app")
	},
	"puma": func(at netip.AddrPort, folder string) *exec.Cmd {
		write(folder, "config.ru", `run ->(e) { e["rack.input"]&.read; [200, {"content-length" => "6"}, ["hello\n"]] }`)
		return exec.Command("puma", "-b", "tcp://"+at.String(), "-t", "8:8", "--dir", folder, "--silent", folder+"/config.ru")
	},
	"java": func(at netip.AddrPort, folder string) *exec.Cmd {
		write(folder, "Http.java", java)
		return exec.Command("java", "-Dsun.net.httpserver.maxIdleConnections=100000", folder+"/Http.java", port(at)) // it keeps 200, and closes others all the time
	},
	"nginx": func(at netip.AddrPort, folder string) *exec.Cmd {
		apptestMust(os.Chmod(folder, 0o777))
		f := folder
		write(folder, "nginx.conf", fmt.Sprintf(nginx, f, f, f, f, f, f, f, at))
		return exec.Command("nginx", "-p", folder, "-c", folder+"/nginx.conf", "-e", folder+"/error.log")
	},
}

// stopSignals are what a kind of server finishes its requests on, where that is not TERM.
var stopSignals = map[string]syscall.Signal{"nginx": syscall.SIGQUIT}

func port(at netip.AddrPort) string { return strconv.Itoa(int(at.Port())) }

func write(folder, name, content string) {
	apptestMust(os.WriteFile(filepath.Join(folder, name), []byte(content), 0o644))
}

func apptestMust(err error) {
	if err != nil {
		panic(err)
	}
}

func startServer(t *testing.T, name string) *server {
	t.Helper()
	at := apptest.FreePort(t, "127.0.0.1")
	s := &server{command: kinds[name](at, t.TempDir()), at: at, exited: make(chan struct{})}
	s.command.Stderr = os.Stderr
	if _, err := exec.LookPath(s.command.Path); err != nil {
		requirement.Check(t, name, err)
	}
	s.command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	apptest.Must(t, s.command.Start())
	go func() { _ = s.command.Wait(); close(s.exited) }()
	t.Cleanup(func() {
		_ = syscall.Kill(-s.command.Process.Pid, syscall.SIGKILL)
		<-s.exited
	})
	apptest.Eventually(t, name+" serves", func() bool {
		c, err := net.Dial("tcp", at.String())
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return s
}

// pids are the server and its descendants, those that run.
func (s *server) pids() ([]int, error) {
	pids := []int{s.command.Process.Pid}
	for i := 0; i < len(pids); i++ {
		children, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pids[i]))
		for _, file := range children {
			text, _ := os.ReadFile(file)
			for _, word := range strings.Fields(string(text)) {
				if pid, err := strconv.Atoi(word); err == nil {
					pids = append(pids, pid)
				}
			}
		}
	}
	return pids, nil
}

func (s *server) stop(name string) {
	_ = s.command.Process.Signal(cmp.Or(stopSignals[name], syscall.SIGTERM))
}

// within is how long a server has to end; then it is killed.
const within = 10 * time.Second

func (s *server) awaitEnd() {
	select {
	case <-s.exited:
	case <-time.After(within):
		_ = syscall.Kill(-s.command.Process.Pid, syscall.SIGKILL)
		<-s.exited
	}
}

// bidFarewell is what grace does: the successor serves, and the old generation is told to stop.
func bidFarewell(t *testing.T, name string, old, next *server) Result {
	t.Helper()
	begin := time.Now()
	f, err := announcer(t).Announce(Generation{Pids: old.pids, At: []netip.AddrPort{old.at}})
	apptest.Must(t, err)
	defer f.Release()
	announced := time.Since(begin)
	second, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	left, err := f.Await(second)
	apptest.Must(t, err)
	old.awaitAccepted()
	begin = time.Now()
	held, err := f.Hold(within)
	apptest.Must(t, err)
	holding := time.Since(begin)
	old.stop(name)
	stopping, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	go func() { <-old.exited; cancel() }()
	result, err := f.Keep(context.Background(), stopping, Keeping{
		For:    10 * time.Second,
		Failed: func(err error) { t.Log(err) },
		Dial: func(ctx context.Context, at netip.AddrPort) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", next.at.String())
		},
	})
	apptest.Must(t, err)
	t.Logf("announced in %v, %+v; held in %v, %+v; result %+v", announced, left, holding, held, result)
	return result
}

// awaitAccepted waits until all who have connected are accepted, as grace does before it tells a generation to stop.
func (s *server) awaitAccepted() {
	for end := time.Now().Add(within); s.queued() && time.Now().Before(end); {
		time.Sleep(looks)
	}
}

// queued reads the length of the accept queue, the receive queue of a listener, from /proc/net/tcp.
func (s *server) queued() bool {
	table, _ := os.ReadFile("/proc/net/tcp")
	local := fmt.Sprintf(" 0100007F:%04X 00000000:0000 0A ", s.at.Port())
	_, row, found := strings.Cut(string(table), local)
	queues, _, _ := strings.Cut(row, " ")
	return found && !strings.HasSuffix(queues, ":00000000")
}

func number(name string, otherwise int) int {
	if n, err := strconv.Atoi(environment(name)); err == nil {
		return n
	}
	return otherwise
}

// upgradeUnder runs upgrades of a kind of server under a herd.
func upgradeUnder(t *testing.T, name string, of ...clients) tally {
	t.Helper()
	h := startHerd(t, of...)
	old := startServer(t, name)
	h.goTo(t, old.at.String())
	time.Sleep(time.Duration(number("FAREWELL_BEFORE", 1)) * time.Second)
	for range number("FAREWELL_UPGRADES", 2) {
		next := startServer(t, name)
		h.goTo(t, next.at.String())
		if environment("FAREWELL") == "0" {
			old.stop(name)
		} else {
			bidFarewell(t, name, old, next)
		}
		old.awaitEnd()
		old = next
	}
	got := h.tally(t)
	t.Log(name, got)
	return got
}

// always are the servers that are tested without -farewell.servers. They keep up on a busy machine: requests that wait for
// seconds in a server are not what is tested.
const always = "go,nginx,node,python"

var servers = flag.String("farewell.servers", always, "the servers of TestServers: "+always+",gunicorn,uvicorn,java,puma")

func TestServers(t *testing.T) {
	announcer(t)
	for name := range strings.SplitSeq(*servers, ",") {
		t.Run(name, func(t *testing.T) {
			busy := clients{number("FAREWELL_BUSY", 50), 0, 4 * time.Millisecond}
			moderate := clients{number("FAREWELL_MODERATE", 100), 200 * time.Millisecond, 800 * time.Millisecond}
			silent := clients{number("FAREWELL_SILENT", 100), 2 * time.Second, 6 * time.Second}
			if got := upgradeUnder(t, name, busy, moderate, silent); got.Failed > 0 {
				t.Error("requests were lost")
			}
		})
	}
}
