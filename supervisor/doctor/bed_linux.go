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
const limit = 5 * time.Second

// bed is where one patient lies: its process and both ends of what is said.
type bed struct {
	process *childproc.Process
	stdin   *os.File // the patient lives until it is closed
	stdout  *os.File
	ended   chan struct{}
	watched chan struct{} // closed when nobody is left who could kill
}

// admit starts a patient. The caller dismisses it.
func (e *examination) admit(how string, change func(*childproc.Spec)) (*bed, error) {
	theirStdin, stdin, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("cannot make a pipe: %w", err)
	}
	defer theirStdin.Close()
	stdout, theirStdout, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cannot make a pipe: %w", err), stdin.Close())
	}
	defer theirStdout.Close()
	spec := childproc.Spec{
		Path: "/proc/self/exe", Args: append(slices.Clone(e.options.Patient), how), Env: handoff.CleanEnv(os.Environ()),
		Stdin: int(theirStdin.Fd()), Stdout: int(theirStdout.Fd()), Stderr: 2,
		Umask: -1, Identity: e.identity,
	}
	change(&spec)
	process, err := e.family.Start(spec)
	if err != nil {
		return nil, errors.Join(err, stdin.Close(), stdout.Close())
	}
	b := &bed{process, stdin, stdout, make(chan struct{}), make(chan struct{})}
	go b.watch(e.limit)
	return b, nil
}

// watch makes sure that the process ends, and with it all that waits for it.
func (b *bed) watch(limit time.Duration) {
	defer close(b.watched)
	select {
	case <-b.ended:
	case <-time.After(limit):
		// Its end is waited for, and told by its status.
		_ = b.process.SignalGroup(unix.SIGKILL)
	}
}

// dismiss ends the patient, and says whether it went well.
func (b *bed) dismiss() error {
	err := b.stdin.Close()
	exit, failed := b.process.Wait()
	close(b.ended)
	<-b.watched
	err = errors.Join(err, failed, b.stdout.Close(), b.process.Reap())
	if err == nil && exit.Err != nil {
		return exit.Err
	}
	if err == nil && exit.Status() != 0 {
		return fmt.Errorf("the app that was started to try it ended with %s", exit)
	}
	return err
}

// listen waits for what the patient has to say. io.EOF tells that it has ended.
func (b *bed) listen() (symptoms, error) {
	var s symptoms
	line, err := bufio.NewReader(b.stdout).ReadBytes('\n')
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(line, &s); err != nil {
		return s, fmt.Errorf("cannot understand %q: %w", line, err)
	}
	return s, nil
}

// call connects to a patient and has it answer. The caller closes the connection,
// which the patient keeps open so long.
func call(address string) (net.Conn, error) {
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
