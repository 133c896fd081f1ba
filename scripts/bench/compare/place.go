package compare

import (
	"cmp"
	"embed"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// programs are built once for all.
type programs struct{ grace, app string }

// place is a folder and a free address, for one server.
type place struct {
	programs
	dir, address, backend string
	log                   *os.File // what everything here writes
}

//go:embed servers
var files embed.FS

func newPlace(built programs, backend string) (*place, error) {
	dir, err := os.MkdirTemp("", "grace-compare-")
	if err != nil {
		return nil, err
	}
	p := &place{programs: built, dir: dir, backend: backend}
	if p.log, err = os.OpenFile(p.path("log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644); err != nil {
		return nil, err
	}
	if p.address, err = freeAddress(); err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o755); err != nil { // some servers change to another user
		return nil, err
	}
	return p, p.write("version", "1\n")
}

func freeAddress() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer ln.Close()
	return ln.Addr().String(), nil
}

func (p *place) remove() {
	p.log.Close()
	os.RemoveAll(p.dir)
}

// tail is the end of what was written here.
func (p *place) tail() string {
	text, _ := os.ReadFile(p.path("log"))
	return string(text[max(0, len(text)-tailSize):])
}

const tailSize = 2000

func (p *place) path(name string) string { return filepath.Join(p.dir, name) }

func (p *place) port() string { return p.address[strings.LastIndexByte(p.address, ':')+1:] }

// write replaces a file in one step, because servers read it at any time.
func (p *place) write(name, text string) error {
	if err := os.WriteFile(p.path(name+".new"), []byte(text), 0o644); err != nil {
		return err
	}
	return os.Rename(p.path(name+".new"), p.path(name))
}

// deploy is how all servers learn of a version that have no configuration of their own.
func (p *place) deploy(v version) error {
	return p.write("version", strings.TrimSpace(fmt.Sprint(v.number, " ", string(v.fault)))+"\n")
}

// install writes one of the embedded files. In it ADDRESS, PORT, BACKEND and FOLDER stand for what they say, and so do further
// pairs of words.
func (p *place) install(name string, pairs ...string) error {
	text, err := fs.ReadFile(files, "servers/"+name)
	if err != nil {
		return err
	}
	pairs = append(pairs, "ADDRESS", p.address, "PORT", p.port(), "BACKEND", p.backend, "FOLDER", p.dir)
	return p.write(name, strings.NewReplacer(pairs...).Replace(string(text)))
}

// goApp is the command line of the app.
func (p *place) goApp(s server, flags ...string) []string {
	end := cmp.Or(s.end, byShutdown)
	return append([]string{p.app, "-addr", p.address, "-version", p.path("version"), "-end", string(end), "-delay", s.delay.String()}, flags...)
}

// process is one that was started here.
type process struct {
	*exec.Cmd
	exited chan struct{}
}

// run starts a command in the place's folder.
func (p *place) run(command []string, env ...string) (*process, error) {
	c := &process{exec.Command(command[0], command[1:]...), make(chan struct{})}
	c.Dir, c.Stdout, c.Stderr = p.dir, p.log, p.log
	c.Env = append(os.Environ(), env...)
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := c.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = c.Wait() // most are killed
		close(c.exited)
	}()
	return c, nil
}

// ask runs a short command to its end.
func (p *place) ask(command []string, env ...string) error {
	c := exec.Command(command[0], command[1:]...)
	c.Dir, c.Env = p.dir, append(os.Environ(), env...)
	out, err := c.CombinedOutput()
	fmt.Fprintf(p.log, "%s: %v\n%s", strings.Join(command, " "), err, out)
	if err != nil {
		return fmt.Errorf("%s: %w", command[0], err)
	}
	return nil
}

func (c *process) signal(s syscall.Signal) error { return c.Process.Signal(s) }

func (c *process) ended() bool {
	select {
	case <-c.exited:
		return true
	default:
		return false
	}
}

// end signals, and kills what has not ended in time.
func (c *process) end(s syscall.Signal, within time.Duration) {
	_ = c.signal(s) // it may have ended
	select {
	case <-c.exited:
	case <-time.After(within):
		_ = syscall.Kill(-c.Process.Pid, syscall.SIGKILL)
		<-c.exited
	}
}

// signalled is a tool whose process stays, and that is told by a signal to replace the server.
type signalled struct {
	*place
	*process
	on syscall.Signal
}

// startSignalled returns before the server serves.
func (p *place) startSignalled(on syscall.Signal, command []string, env ...string) (running, error) {
	c, err := p.run(command, env...)
	if err != nil {
		return nil, err
	}
	return &signalled{p, c, on}, nil
}

func (s *signalled) upgrade() error  { return s.signal(s.on) }
func (s *signalled) supervisor() int { return s.Process.Pid }
func (s *signalled) stop()           { s.end(syscall.SIGTERM, granted) }

// readPid is of a file that a server writes.
func (p *place) readPid(name string) (int, error) {
	text, err := os.ReadFile(p.path(name))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}
