package doctor

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"time"

	"github.com/gracerun/grace/childproc"
	"github.com/gracerun/grace/handoff"
	"golang.org/x/sys/unix"
)

// limit ends what does not end by itself. All of it together takes some
// hundredths of a second.
const limit = 20 * time.Second

// testApp is a running test app: its process, and pipes to and from it.
type testApp struct {
	process *childproc.Process
	stdin   *os.File // the test app lives until it is closed
	stdout  *os.File
	ended   chan struct{}
	watched chan struct{} // closed when nobody is left who could kill
}

// start makes an app of this program. The caller ends it.
func (e *examination) start(how string, change func(*childproc.Spec)) (*testApp, error) {
	theirStdin, stdin, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("cannot create a pipe: %w", err)
	}
	defer theirStdin.Close()
	stdout, theirStdout, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cannot create a pipe: %w", err), stdin.Close())
	}
	defer theirStdout.Close()
	program, err := childproc.OpenExecutable("/proc/self/exe")
	if err != nil {
		return nil, errors.Join(err, stdin.Close(), stdout.Close())
	}
	defer unix.Close(program)
	spec := childproc.Spec{
		Path: "/proc/self/exe", Program: program, Args: append(slices.Clone(e.options.TestApp), how), Env: handoff.CleanEnv(os.Environ()),
		Stdin: int(theirStdin.Fd()), Stdout: int(theirStdout.Fd()), Stderr: 2,
		Umask: -1, Identity: e.identity,
	}
	change(&spec)
	process, err := e.family.Start(spec)
	if err != nil {
		return nil, errors.Join(err, stdin.Close(), stdout.Close())
	}
	p := &testApp{process, stdin, stdout, make(chan struct{}), make(chan struct{})}
	go p.watch(e.limit)
	return p, nil
}

// watch makes sure that the process ends, and with it all that waits for it.
func (p *testApp) watch(limit time.Duration) {
	defer close(p.watched)
	select {
	case <-p.ended:
	case <-time.After(limit):
		// Its end is waited for, and told by its status.
		_ = p.process.SignalGroup(unix.SIGKILL)
	}
}

// end ends the test app, and says whether it went well.
func (p *testApp) end() error {
	err := p.stdin.Close()
	exit, failed := p.process.Wait()
	close(p.ended)
	<-p.watched
	err = errors.Join(err, failed, p.stdout.Close(), p.process.Reap())
	if err == nil && exit.Err != nil {
		return exit.Err
	}
	if err == nil && exit.Status() != 0 {
		return fmt.Errorf("the test app ended with %s", exit)
	}
	return err
}

// listen waits for what the test app says. io.EOF tells that it has ended.
func (p *testApp) listen() (testAppReport, error) {
	var s testAppReport
	line, err := bufio.NewReader(p.stdout).ReadBytes('\n')
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(line, &s); err != nil {
		return s, fmt.Errorf("cannot understand %q: %w", line, err)
	}
	return s, nil
}

// dial connects to a test app and has it answer. The caller closes the connection,
// which the test app keeps open until then.
func dial(address string) (net.Conn, error) {
	conn, err := net.DialTimeout("tcp", address, limit)
	if err != nil {
		return nil, err
	}
	if err := conn.SetDeadline(time.Now().Add(limit)); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
		return nil, errors.Join(fmt.Errorf("no answer from %s: %w", address, err), conn.Close())
	}
	return conn, nil
}
