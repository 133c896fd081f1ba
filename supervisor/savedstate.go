package supervisor

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/gracerun/grace/childproc"
	"github.com/gracerun/grace/handoff/socket"
	"github.com/gracerun/grace/supervisor/host"
	"github.com/gracerun/grace/supervisor/machine"
	"golang.org/x/sys/unix"
)

// savedState is what a grace process leaves in its runtime directory for who is to go on with the app after it was killed. It has
// no value of the app's environment.
type savedState struct {
	handoverState
	Name    string          // of the control socket
	Command []string        // as it was given to grace
	Dir     string          // where that was
	Boot    string          // whatever the numbers of processes in it mean something in
	Birth   childproc.Birth // of the grace process that has written it
	Written uint64          `json:",omitzero"` // in ns since the boot
	// Invocation is how grace was started, InvokedIn where.
	Invocation []string
	InvokedIn  string
	steering   <-chan host.SteeringCopy // comes into the state of the host; nil: there is none
}

// encode puts it in place of what is in the buffer.
func (d *savedState) encode(b *bytes.Buffer) error {
	b.Reset()
	if err := json.NewEncoder(b).Encode(d); err != nil {
		return fmt.Errorf("cannot encode grace's state: %w", err)
	}
	return nil
}

// prepareEncoding comes early, as the first instance waits for the state that tells of it: the first time, encoding/json looks at
// all fields of the type, which takes 2 ms.
func prepareEncoding() { _ = (&savedState{}).encode(&bytes.Buffer{}) }

// readSaved refuses what this grace process does not understand.
func readSaved(text []byte) (*savedState, error) {
	if err := checkVersion(text); err != nil {
		return nil, err
	}
	d := &savedState{}
	if err := json.Unmarshal(text, d); err != nil {
		return nil, fmt.Errorf("the state of the old grace process is invalid: %w", err)
	}
	if d.Boot == "" || d.PID == 0 {
		return nil, errors.New("the state of the old grace process is incomplete")
	}
	if err := errors.Join(d.check(), d.Host.Check(), d.checkProcesses()); err != nil {
		return nil, err
	}
	return d, nil
}

// checkProcesses compares what the two halves of a state say of the processes.
func (d *savedState) checkProcesses() error {
	instances := d.Machine.AllInstances()
	for _, a := range d.Host.Apps {
		if i, ok := instances[a.Instance]; !ok || i.PID != a.Main.PID || i.Slot != a.Slot {
			return fmt.Errorf("the state has two processes for instance %d", a.Instance)
		}
	}
	return nil
}

// lives reports whether something of the app is left that this process can see.
func (d *savedState) lives() bool { return d.Boot == boot() && d.Host.Lives(d.Machine) }

// over reports whether nobody needs the state any more: the grace process that has written it and its app have ended. In a PID namespace
// that this process is not in it sees none of them, but they have all ended with the first one there.
func (d *savedState) over() bool {
	if d.Boot == boot() {
		return !d.supervised() && !d.Host.Lives(d.Machine)
	}
	here, _, _ := strings.Cut(boot(), " ")
	there, _, _ := strings.Cut(d.Boot, " ")
	return here != there || d.PID == 1
}

// supervised reports whether the grace process that has written the state lives.
func (d *savedState) supervised() bool {
	fd, err := childproc.ProcessState{PID: d.PID, Birth: d.Birth}.Open()
	_ = socket.CloseFD(fd) // it is only looked at
	return err != nil || fd >= 0 && childproc.Living(d.PID)
}

// isOf reports whether the state is of a grace process that was started as this one is.
func (d *savedState) isOf(o Options) bool {
	if d.Name != o.Name {
		return false
	}
	return !o.unnamed || d.Dir == o.Dir && slices.Equal(d.Command, o.Command)
}

// boot names the system, from its boot on, and the PID namespace.
func boot() string {
	id, _ := os.ReadFile("/proc/sys/kernel/random/boot_id") // without it only the namespace tells
	namespace, _ := os.Readlink("/proc/self/ns/pid")
	return string(bytes.TrimSpace(id)) + " " + namespace
}

// stateWriter keeps the saved state current. It writes beside the loop, and what has changed meanwhile only once.
type stateWriter struct {
	service *service
	stale   chan struct{} // has one while something has changed
	aged    chan struct{} // the same of what can be written late
	stop    chan struct{}
	stopped chan struct{}
	wanted  chan chan struct{} // who waits for the state of now to be written
	noted   chan chan struct{} // who waits for what was noted to be written
	store   *fdStore
	file    *host.StateFile
	text    bytes.Buffer // what was written last, kept for its space
	told    string       // why it cannot be written
}

func openStateWriter(s *service) *stateWriter {
	w := &stateWriter{service: s, store: s.store, file: host.NewStateFile(s.runtime), stale: make(chan struct{}, 1), aged: make(chan struct{}, 1), wanted: make(chan chan struct{}), noted: make(chan chan struct{}), stop: make(chan struct{}), stopped: make(chan struct{})}
	if s.runtime.Path == "" {
		close(w.stopped)
		return w
	}
	s.loop.changed, s.apps.Changed, s.loop.aged = func() { note(w.stale) }, func() { note(w.stale) }, func() { note(w.aged) }
	s.apps.Saved, s.apps.Noted = func() { w.await(w.wanted) }, func() { w.await(w.noted) }
	note(w.stale)
	go w.run()
	return w
}

// note says that the state has changed. Any goroutine may call it.
func note(changed chan<- struct{}) {
	select {
	case changed <- struct{}{}:
	default: // it will be seen when the state is written next
	}
}

// await returns when what is waited for was written, or cannot be. It may be called by any goroutine but the loop's.
func (w *stateWriter) await(what chan<- chan struct{}) {
	written := make(chan struct{})
	select {
	case what <- written:
	case <-w.stopped:
		return
	}
	select {
	case <-written:
	case <-w.stopped:
	}
}

// lateBy is how late the state tells of what can be written late: of an app that ends several things change one after the other.
const lateBy = 20 * time.Millisecond

func (w *stateWriter) run() {
	defer close(w.stopped)
	var late *time.Timer
	due := (<-chan time.Time)(nil)
	for {
		var waiting []chan struct{}
		select {
		case <-w.stop:
			return
		case <-w.aged:
			if due == nil {
				late = time.NewTimer(lateBy)
				due = late.C
			}
			continue
		case one := <-w.noted:
			if len(w.stale) == 0 {
				close(one)
				continue
			}
			waiting = append(waiting, one)
		case first := <-w.wanted:
			waiting = append(waiting, first)
		case <-w.stale:
			runtime.Gosched() // who acts on the change comes first, and may change more
		case <-due:
		}
		if due != nil {
			late.Stop()
			due = nil
		}
		w.writeFor(w.others(waiting))
	}
}

// others adds those who want the state to be written by now, and leaves out what was noted.
func (w *stateWriter) others(waiting []chan struct{}) []chan struct{} {
	for {
		select {
		case <-w.stale:
		case <-w.aged:
		case one := <-w.wanted:
			waiting = append(waiting, one)
		case one := <-w.noted:
			waiting = append(waiting, one)
		default:
			return waiting
		}
	}
}

func (w *stateWriter) writeFor(waiting []chan struct{}) {
	err := w.write()
	for _, one := range waiting {
		close(one)
	}
	if err != nil && err.Error() != w.told {
		w.told = err.Error()
		w.service.loop.post(machine.Noticed{Text: "cannot save the state: if this grace process is killed, the next one cannot adopt the app", Why: err.Error()})
	}
}

func (w *stateWriter) write() error {
	s, answer, storing := w.service, make(chan *savedState, 1), w.store.storing()
	if storing != nil {
		storing.AddMemory(w.store.memory)
	}
	select {
	case s.loop.stateRequests <- stateRequest{storing, answer}:
	case <-s.loop.done:
		return nil
	case <-w.stop:
		return nil
	}
	d := <-answer
	if d.steering != nil {
		copied := <-d.steering
		if copied.Err != nil {
			return copied.Err
		}
		d.Host.Steering = &copied.State
	}
	stored := w.store.keep(storing) // first: what the state tells of is there
	d.Written = sinceBoot()
	if err := d.encode(&w.text); err != nil {
		return err
	}
	kept, err := w.store.keepState(d.Written, w.text.Bytes())
	if failed := w.file.Write(d.Written, w.text.Bytes()); !kept { // one of the two is enough
		err = errors.Join(err, failed)
	}
	if d.Machine.State == "stopping" { // the next grace process has use for what the apps give up now
		w.store.spare(storing)
	}
	return errors.Join(err, stored, w.store.clear(storing))
}

// sinceBoot orders the states that all grace processes write of an app.
func sinceBoot() uint64 {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &now) // it cannot fail with a clock that there is
	return uint64(now.Nano())
}

// end returns when nothing is written any more.
func (w *stateWriter) end() {
	select {
	case <-w.stop:
	default:
		close(w.stop)
	}
	<-w.stopped
}

// giveUp leaves nothing to a next grace process: the app has all.
func (w *stateWriter) giveUp() {
	w.end()
	if err := w.store.empty(w.store.names()); err != nil {
		w.service.options.Log.Warn().Str("why", err.Error()).Msg("cannot remove what the service manager has kept")
	}
}

// close returns when nothing is written any more, and leaves the held listeners to the next grace process.
func (w *stateWriter) close() {
	if w == nil {
		return
	}
	w.end()
	_ = w.file.Close()  // it is of no use any more
	_ = w.store.close() // where the service manager cannot be reached there is nothing to tidy up
}

// save is the state of this moment, but for the steering, which is copied beside the loop. It is the loop's.
func (s *service) save(storing *host.Storing) *savedState {
	m := s.loop.snapshot()
	d := &savedState{
		handoverState: handoverState{Version: stateVersion, Grace: s.options.Version, PID: os.Getpid(), Machine: m, Host: s.apps.Save(m, storing)},
		Name:          s.options.Name, Command: s.options.Command, Dir: s.options.Dir, Boot: s.boot, Birth: s.birth,
		Invocation: s.options.Invocation, InvokedIn: s.options.InvokedIn,
	}
	if s.steering != nil {
		d.steering = s.apps.CopySteering(storing.AddSteered)
	}
	if s.metrics != nil {
		state := s.metrics.State()
		d.Host.Metrics = &state
	}
	return d
}
