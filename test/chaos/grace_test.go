package chaos

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gracerun/grace/cmd/load"
	"github.com/gracerun/grace/internal/gracelog"
	"github.com/gracerun/grace/supervisor/control"
	"golang.org/x/sys/unix"
)

// grace is one instance of grace, with those that take over from it, and its app and clients.
type grace struct {
	run        *run
	kind       kind
	name       string
	dir        string // of this one
	port       string
	program    string // where grace finds its successor
	mounted    bool   // the runtime directory is in a file system of its own
	follows    bool   // a service manager follows: a successor is another process
	plain      bool   // the app knows nothing of grace: its clients are told to leave by the kernel
	lost       bool
	abandoned  atomic.Bool // what fails from here on tells nothing
	client     *control.Client
	load       *load.Load
	casualties casualties
	shares     bool // a restart and a candidate may have begun together
	measured   []growth

	mu      sync.Mutex
	main    int       // pid of grace
	since   time.Time // of that
	counts  map[string]int
	changed chan struct{} // closed and replaced at each line of the log
	closed  chan struct{} // at the end of the log
}

const (
	readyTimeout = 15 * time.Second
	drainTimeout = 20 * time.Second
	settleTime   = 200 * time.Millisecond
)

func (r *run) newGrace(kind kind, n int, port string) *grace {
	g := &grace{run: r, kind: kind, name: fmt.Sprintf("%s-%d", kind.name, n), port: port}
	g.dir = filepath.Join(r.dir, g.name)
	g.program = filepath.Join(g.dir, "grace")
	g.follows = (kind.index+n)%2 == 1
	g.plain = r.isolated && os.Geteuid() == 0 && kind.own && kind.network == "tcp" && (r.seed/2+uint64(n))%2 == 0
	g.casualties.killed, g.counts = map[string]time.Time{}, map[string]int{}
	g.changed, g.closed = make(chan struct{}), make(chan struct{})
	return g
}

// runtime is the directory of grace's own sockets: it can be removed, and what it is in can be full.
func (g *grace) runtime() string { return filepath.Join(g.dir, "run", "runtime") }

func (g *grace) start() {
	g.must(g.furnish())
	environment := append(os.Environ(), "RUNTIME_DIRECTORY="+g.runtime(), "TMPDIR="+g.dir+"/tmp", "GORACE=atexit_sleep_ms=0", mark+g.name)
	g.must(os.Unsetenv("XDG_RUNTIME_DIR"))
	if g.follows {
		g.must(g.follow(g.dir + "/notify"))
		environment = append(environment, "NOTIFY_SOCKET="+g.dir+"/notify")
	}
	r, w, err := os.Pipe()
	g.must(err)
	pid, err := g.run.children.start(g.program, g.arguments(), &os.ProcAttr{
		Dir: "/", Env: environment, Files: []*os.File{nil, w, w}, Sys: g.attributes(),
	})
	w.Close()
	g.must(err)
	g.isMain(pid)
	go g.read(r)
	g.client = control.NewClient(g.runtime() + "/grace.sock")
	g.await("it serves", serving)
	for range 2 { // what is made once is there then
		g.mustUpgrade(g.app())
	}
	g.load, err = load.Start(context.Background(), g.clients())
	g.must(err)
	g.measure()
}

func (g *grace) attributes() *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Setpgid: true}
	if g.kind.nobody && !g.plain && os.Geteuid() == 0 {
		a.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
	}
	return a
}

const nobody = 65534

func (g *grace) arguments() []string {
	arguments := []string{
		g.program, "run", "--name", "grace", "--log-format", "json",
		"--ready-timeout", readyTimeout.String(), "--drain-timeout", drainTimeout.String(), "--settle", settleTime.String(), "--max-draining", "8",
		"--keep", "2s", // descriptors are counted when nothing is left
	}
	if !g.plain && g.random(0).IntN(2) == 0 {
		arguments = append(arguments, "--farewell", "0s")
	}
	arguments = append(arguments, g.kind.flags(g)...)
	return append(append(arguments, "--"), g.app()...)
}

// app is a command that works.
func (g *grace) app(more ...string) []string {
	program := []string{filepath.Join(g.run.programs, "app")}
	if g.plain {
		program = append(program, "-plain")
	}
	return append(append(program, g.kind.app(g)...), more...)
}

func (g *grace) clients() load.Config {
	clients := map[load.Kind]int{load.NewConnection: 1, load.KeepAliveGet: 1, load.KeepAlivePost: 1, load.Slow: 1, load.Stream: 1}
	if g.plain { // whose streams have no end
		clients = map[load.Kind]int{load.NewConnection: 1, load.KeepAliveGet: 4, load.KeepAlivePost: 4, load.Slow: 1}
	}
	return load.Config{
		Network: g.kind.network, Addr: g.kind.address(g), Clients: clients,
		Paths: map[load.Kind]string{load.Slow: "/slow?for=300ms"},
		// Five grace processes share what may be two processors with other tests.
		ThinkMin: 5 * time.Millisecond, ThinkMax: 60 * time.Millisecond,
		Timeout: patience,
		Report:  g.failed,
	}
}

// failed hears of each request that has failed.
func (g *grace) failed(f load.Failed) {
	if g.abandoned.Load() || g.casualties.excuse(f) {
		return
	}
	g.find("a request failed that no killed instance had: %s (connection %s, opened %s)", f, f.On.Client, f.On.Opened.Format(clock))
}

// furnish makes the directories. With the rights for it the runtime directory is in a small file system of its own.
func (g *grace) furnish() error {
	around := filepath.Dir(g.runtime())
	if err := errors.Join(os.MkdirAll(around, 0o755), os.Mkdir(g.dir+"/tmp", 0o777)); err != nil {
		return err
	}
	if g.run.isolated {
		if err := unix.Mount("tmpfs", around, "tmpfs", 0, "size=256k,nr_inodes=64"); err != nil {
			return fmt.Errorf("cannot mount a file system for the runtime directory: %w", err)
		}
		g.mounted = true
	}
	if err := os.Mkdir(g.runtime(), 0o700); err != nil {
		return err
	}
	if user := g.attributes().Credential; user != nil {
		for _, path := range []string{g.dir, g.dir + "/tmp", around, g.runtime()} {
			if err := os.Chown(path, int(user.Uid), int(user.Gid)); err != nil {
				return err
			}
		}
	}
	return g.install()
}

// install puts the program that works where grace looks for its successor.
func (g *grace) install() error {
	if err := os.Remove(g.program); err != nil && !os.IsNotExist(err) {
		return err
	}
	return os.Link(filepath.Join(g.run.programs, "grace"), g.program)
}

// follow is what a service manager does: it learns from grace which process is grace.
func (g *grace) follow(path string) error {
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return err
	}
	go func() {
		<-g.closed
		conn.Close()
	}()
	go g.hear(conn)
	return os.Chmod(path, 0o666)
}

func (g *grace) hear(conn *net.UnixConn) {
	for text := make([]byte, 4096); ; {
		n, err := conn.Read(text)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		for line := range strings.Lines(string(text[:n])) {
			if pid, ok := strings.CutPrefix(strings.TrimSpace(line), "MAINPID="); ok {
				number, err := strconv.Atoi(pid)
				if err != nil {
					g.find("grace says %q to its service manager", line)
				}
				g.isMain(number)
			}
		}
	}
}

func (g *grace) isMain(pid int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if pid != g.main {
		g.main, g.since = pid, time.Now()
	}
}

func (g *grace) pid() (pid int, since time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.main, g.since
}

// read keeps the log of grace and of its apps, and looks for what must never be in it.
func (g *grace) read(r *os.File) {
	defer close(g.closed)
	defer r.Close()
	file, err := os.Create(g.dir + ".log")
	if err != nil {
		g.find("cannot keep the log: %v", err)
		return
	}
	defer file.Close()
	for lines := bufio.NewReaderSize(r, 1<<16); ; {
		line, err := lines.ReadBytes('\n')
		if _, failed := file.Write(line); failed != nil {
			g.find("cannot keep the log: %v", failed)
		}
		g.look(line)
		if err != nil {
			return
		}
	}
}

func (g *grace) look(line []byte) {
	for _, never := range []string{"panic:", "fatal error:", "DATA RACE"} {
		if bytes.Contains(line, []byte(never)) {
			g.find("the log has: %s", bytes.TrimSpace(line))
		}
	}
	entry := gracelog.Parse(line)
	if entry.Message == "" {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.counts[entry.Message]++
	close(g.changed)
	g.changed = make(chan struct{})
}

// said tells how often the log has a message.
func (g *grace) said(message string) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.counts[message]
}

// awaitSaid waits until the log has a message more often than before.
func (g *grace) awaitSaid(message string, before int) {
	for limit := time.After(patience); ; {
		g.mu.Lock()
		n, changed := g.counts[message], g.changed
		g.mu.Unlock()
		if n > before {
			return
		}
		select {
		case <-changed:
		case <-g.closed:
			g.lose("the log ends, and does not have: %s", message)
		case <-limit:
			g.lose("the log does not have: %s", message)
		}
	}
}

func (g *grace) find(format string, arguments ...any) {
	g.run.book.find(g.name, format, arguments...)
}

// lose is a finding after which nothing more can be learned from this grace.
func (g *grace) lose(format string, arguments ...any) {
	if !g.abandoned.Swap(true) {
		g.find(format, arguments...)
	}
	panic(lost{})
}

// must is for what is the test's own.
func (g *grace) must(err error) {
	if err != nil {
		g.lose("the test cannot go on: %v", err)
	}
}

// ask waits for the result of a request.
func (g *grace) ask(ctx context.Context, r control.Request) (control.Result, error) {
	answer, err := g.client.Ask(ctx, r)
	if err != nil {
		return control.Result{}, err
	}
	defer answer.Close()
	return answer.Wait(func(control.Report) {})
}

func (g *grace) mustAsk(r control.Request) control.Result {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	result, err := g.ask(ctx, r)
	if err != nil {
		g.lose("%s is not answered: %v", r.Do, err)
	}
	g.run.book.note(g.name, "%s: %s, generation %d, %d serves %s", r.Do, result.Outcome, result.Generation, result.Serving, result.Why)
	return result
}

func serving(s control.Status) bool {
	at := slices.IndexFunc(s.Generations, func(g control.Generation) bool { return g.Number == s.Current })
	return s.State == "serving" && at >= 0 && !slices.ContainsFunc(s.Generations[at].Instances, func(i control.Instance) bool { return i.Phase != "ready" })
}

func (g *grace) status() (control.Status, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return g.client.Status(ctx)
}

// await asks until a status is as it has to become.
func (g *grace) await(what string, is func(control.Status) bool) control.Status {
	var s control.Status
	var err error
	for limit := time.Now().Add(patience); time.Now().Before(limit); time.Sleep(10 * time.Millisecond) {
		if s, err = g.status(); err == nil && is(s) {
			return s
		}
		if pid, since := g.pid(); pid != 0 {
			if status, ended := g.run.children.end(pid, since); ended {
				g.lose("grace has ended: exit status %d, signal %v", status.ExitStatus(), status.Signal())
			}
		}
	}
	text, _ := json.Marshal(s)
	g.lose("it never comes that %s: %v, status %s", what, err, text)
	return s
}

// settle waits until the grace process serves, and has who serves be asked.
func (g *grace) settle() {
	s := g.await("it serves", serving)
	g.answeredBy(s.Current)
	g.shares = g.shares && len(s.Generations) > 1
}

// answeredBy waits until a generation answers. Where each has sockets of its own, it has to answer at once, unless the one
// before was started again with the same queue, and has not been told to stop.
func (g *grace) answeredBy(generation int) {
	for limit := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		answers, err := g.get("/")
		switch {
		case err != nil:
			g.find("a new client gets no answer: %v", err)
			return
		case answers == generation:
			return
		case g.kind.own && !g.shares:
			g.find("generation %d serves, and %d answers a new client", generation, answers)
			return
		case time.Now().After(limit):
			g.lose("generation %d serves, and %d answers a new client", generation, answers)
		}
	}
}

// get is answered by a generation.
func (g *grace) get(path string) (generation int, err error) {
	var dialer net.Dialer
	client := http.Client{Timeout: patience, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, g.kind.network, g.kind.address(g))
		},
	}}
	response, err := client.Get("http://app" + path)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return 0, err
	}
	return strconv.Atoi(response.Header.Get("X-Generation"))
}

// quiet waits until nothing is left but what serves.
func (g *grace) quiet() control.Status {
	return g.await("only one generation is left", func(s control.Status) bool { return serving(s) && len(s.Generations) == 1 })
}

// finish ends the grace process as an operator does, and looks at what it leaves.
func (g *grace) finish() {
	g.measure()
	g.compare()
	g.endLoad()
	pid, since := g.pid()
	g.must(syscall.Kill(pid, syscall.SIGTERM))
	status, ended := g.run.children.await(pid, since)
	if !ended {
		g.lose("grace does not end at TERM")
	}
	if status.ExitStatus() != 0 {
		g.find("grace has ended with status %d, signal %v", status.ExitStatus(), status.Signal())
	}
	<-g.closed // nobody has its output any more
	for _, dir := range []string{g.runtime(), g.dir + "/tmp"} {
		left, err := filepath.Glob(dir + "/*")
		g.must(err)
		if len(left) > 0 {
			g.find("grace leaves %s", strings.Join(left, ", "))
		}
	}
	if _, err := os.Lstat(g.dir + "/s"); err == nil {
		g.find("grace leaves the app's socket %s", g.dir+"/s")
	}
}

func (g *grace) endLoad() {
	if g.load == nil {
		return
	}
	g.run.book.loaded(g.load.Stop(), g.casualties.excused)
	g.load = nil
}

// bury leaves nothing of a grace process, lost or not.
func (g *grace) bury() {
	if g.client != nil {
		g.client.Close()
	}
	if g.lost {
		g.abandon()
	}
	if g.mounted {
		if err := unix.Unmount(filepath.Dir(g.runtime()), unix.MNT_DETACH); err != nil {
			g.find("cannot unmount: %v", err)
		}
	}
	if err := os.RemoveAll(g.dir); err != nil {
		g.find("cannot remove the folder: %v", err)
	}
}

// abandon has a lost grace process say where it hangs, and ends it and its apps.
func (g *grace) abandon() {
	pid, since := g.pid()
	if pid == 0 {
		return
	}
	apps := g.processes()
	_ = syscall.Kill(pid, syscall.SIGCONT)
	if _, ended := g.run.children.end(pid, since); !ended && syscall.Kill(pid, syscall.SIGABRT) == nil { // Go writes all stacks
		g.run.children.await(pid, since)
	}
	for _, app := range apps {
		_ = syscall.Kill(app, syscall.SIGKILL) // it may have ended
	}
	if g.load != nil {
		g.load.Stop()
	}
}
