package steering

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/gracerun/grace/handoff/internal/apptest"
	"github.com/gracerun/grace/handoff/internal/inherited"
	"github.com/gracerun/grace/handoff/sockdiag"
	"github.com/gracerun/grace/handoff/socket"
	"golang.org/x/sys/unix"
)

func init() {
	apptest.Roles["successor"] = succeed
}

// estate is what a successor gets: FDs are the descriptors of the states, and have in the successor the numbers
// in its place from 3 on, or Here.
type estate struct {
	Steering  *SteeringState
	Listeners []socket.ListenerState
	Grant     *socket.SocketPlanState
	FDs, Here []int
}

// successor is a process that goes on with an estate.
type successor struct {
	steering  *Steering
	listeners []*socket.Listener
	grant     *socket.SocketPlan
	strange   []int // what the test itself was given
}

const estateVariable = "ESTATE"

func succeed() {
	s := &successor{}
	if err := s.takeOver(os.Getenv(estateVariable)); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("taken over")
	apptest.Obey(s.obey)
}

func (s *successor) takeOver(written string) error {
	var e estate
	if err := json.Unmarshal([]byte(written), &e); err != nil {
		return err
	}
	fds := socket.Descriptors{}
	for i, there := range e.FDs {
		here := 3 + i
		if e.Here != nil {
			here = e.Here[i]
		}
		unix.CloseOnExec(here)
		fds[there] = here
	}
	s.strange = leaking()
	if err := s.open(e, fds); err != nil {
		return err
	}
	if len(fds) > 0 {
		return fmt.Errorf("nobody has taken over %v", fds)
	}
	return nil
}

func (s *successor) open(e estate, fds socket.Descriptors) (err error) {
	if e.Steering != nil {
		if s.steering, err = TakeOverSteering(*e.Steering, fds, nil); err != nil {
			return err
		}
	}
	for _, state := range e.Listeners {
		l, err := socket.TakeOverListener(state, fds)
		if err != nil {
			return err
		}
		s.listeners = append(s.listeners, l)
	}
	if e.Grant != nil {
		s.grant, err = socket.TakeOverSocketPlan(*e.Grant, fds)
	}
	return err
}

func (s *successor) obey(order string) string {
	var generation, instance int
	fmt.Sscanf(order[strings.IndexByte(order, ' ')+1:], "%d %d", &generation, &instance)
	switch word, _, _ := strings.Cut(order, " "); word {
	case "cutover":
		kept, err := s.steering.Steer(Split{Generation: generation})
		return fmt.Sprint(kept, err)
	case "retire":
		return fmt.Sprint(s.steering.Retire(InstanceKey{generation, instance}))
	case "sockets":
		return fmt.Sprint(len(s.steering.Sockets(generation)))
	case "wait":
		left, err := s.steering.Wait()
		return fmt.Sprint(left.InstanceKey, err)
	case "revive":
		return fmt.Sprint(s.listeners[0].Revive())
	case "close":
		return fmt.Sprint(s.close())
	case "again":
		return fmt.Sprint(s.again())
	case "clean":
		return fmt.Sprint(slices.Equal(leaking(), s.strange))
	}
	return "what?"
}

func (s *successor) close() error {
	errs := []error{s.grant.Close()}
	for _, l := range s.listeners {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

// again is how a process that has to keep its pid succeeds itself.
func (s *successor) again() error {
	e, err := stateOf(s.steering, s.grant, s.listeners...)
	if err != nil {
		return err
	}
	for _, fd := range e.FDs {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
			return err
		}
	}
	e.Here = e.FDs
	environ := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, estateVariable+"=") })
	return syscall.Exec("/proc/self/exe", os.Args, append(environ, e.variable()))
}

// leaking are the descriptors that a program started now would get.
func leaking() []int {
	var fds []int
	for fd := 3; fd < 256; fd++ {
		if inherited.IsOpen(fd) && !apptest.CloseOnExec(fd) {
			fds = append(fds, fd)
		}
	}
	return fds
}

func stateOf(s *Steering, g *socket.SocketPlan, listeners ...*socket.Listener) (e estate, err error) {
	if s != nil {
		state, err := s.Suspend()
		if err != nil {
			return e, err
		}
		e.Steering, e.FDs = &state, state.FDs()
	}
	for _, l := range listeners {
		e.Listeners = append(e.Listeners, l.State())
		e.FDs = append(e.FDs, l.FD())
	}
	if g != nil {
		state := g.State()
		e.Grant, e.FDs = &state, append(e.FDs, state.Predecessor)
	}
	return e, nil
}

func (e estate) variable() string {
	text, err := json.Marshal(e)
	if err != nil {
		panic(err)
	}
	return estateVariable + "=" + string(text)
}

// startSuccessor hands over to another process. Nothing of what was handed over may be used here until it has ended.
func startSuccessor(t *testing.T, s *Steering, g *socket.SocketPlan, listeners ...*socket.Listener) *apptest.App {
	t.Helper()
	return startSuccessorAfter(t, func() {}, s, g, listeners...)
}

// startSuccessorAfter is for what happens when nobody looks.
func startSuccessorAfter(t *testing.T, happens func(), s *Steering, g *socket.SocketPlan, listeners ...*socket.Listener) *apptest.App {
	t.Helper()
	e, err := stateOf(s, g, listeners...)
	apptest.Must(t, err)
	if s != nil {
		t.Cleanup(func() { s.mutex.TryLock(); s.Resume() })
	}
	happens()
	a := apptest.Start(t, "successor", apptest.Options{Files: e.FDs, Env: []string{e.variable()}})
	if said := a.Hear(t); said != "taken over" {
		t.Fatal(said)
	}
	return a
}

func expect(t *testing.T, a *apptest.App, order, answer string) {
	t.Helper()
	if got := a.Ask(t, order); got != answer {
		t.Fatalf("%s: %s, not %s", order, got, answer)
	}
}

// ways are those to become a successor: another process, and the same one.
var ways = map[string]func(t *testing.T, a *apptest.App){
	"another process":  func(*testing.T, *apptest.App) {},
	"the same process": func(t *testing.T, a *apptest.App) { expect(t, a, "again", "taken over") },
}

func TestSteeringIsTakenOver(t *testing.T) {
	for name, again := range ways {
		t.Run(name, func(t *testing.T) {
			s, at := newSteering(t), reservePort(t, "127.0.0.1")
			old, new := serve(t, s, InstanceKey{1, 0}, at), serve(t, s, InstanceKey{2, 0}, at)
			a := startSuccessor(t, s, nil)
			again(t, a)
			if connected(t, at, 0, old, new) != old {
				t.Fatal("the handover has moved a connection")
			}
			expect(t, a, "sockets 1", "1")
			expect(t, a, "cutover 2", "[] <nil>")
			if connected(t, at, 0, old, new) != new {
				t.Fatal("the successor has not cut over")
			}
			expect(t, a, "retire 1 0", "<nil>")
			expect(t, a, "sockets 1", "0")
			expect(t, a, "clean", "true")
		})
	}
}

// What is shut down while nobody looks has to be known in its order: each of the two leaves the others with other
// numbers.
func TestSuccessorLearnsWhatWasShutDownDuringTheHandover(t *testing.T) {
	for name, again := range ways {
		for _, order := range [][]int{{0, 1}, {1, 0}} {
			t.Run(fmt.Sprint(name, order), func(t *testing.T) {
				s, at := newSteering(t), reservePort(t, "127.0.0.1")
				var sockets []*appSocket
				for _, m := range []InstanceKey{{1, 0}, {1, 1}, {1, 2}, {2, 0}} {
					sockets = append(sockets, serve(t, s, m, at))
				}
				a := startSuccessorAfter(t, func() {
					for _, number := range order {
						apptest.Must(t, unix.Shutdown(sockets[number].fd, unix.SHUT_RDWR))
					}
				}, s, nil)
				again(t, a)
				expect(t, a, "cutover 1", "[] <nil>")
				for range 5 {
					if connected(t, at, 0, sockets[2:]...) != sockets[2] {
						t.Fatal("a connection went to a generation that is not selected")
					}
				}
				expect(t, a, "cutover 2", "[] <nil>")
				if connected(t, at, 0, sockets[2:]...) != sockets[3] {
					t.Fatal("a connection went to a generation that is not selected")
				}
				expect(t, a, "wait", fmt.Sprintf("{1 %d} <nil>", order[0]))
			})
		}
	}
}

func TestSteeringGoesOnWithoutASuccessor(t *testing.T) {
	s, at := newSteering(t), reservePort(t, "127.0.0.1")
	old, new := serve(t, s, InstanceKey{1, 0}, at), serve(t, s, InstanceKey{2, 0}, at)
	a := startSuccessor(t, s, nil)
	third := newAppSocket(t, unix.AF_INET)
	apptest.Must(t, unix.Shutdown(old.fd, unix.SHUT_RDWR))
	apptest.Must(t, unix.Kill(a.PID, unix.SIGKILL))
	a.Wait()
	s.Resume()
	if _, err := s.Steer(Split{Generation: 2}); err != nil {
		t.Fatal(err)
	}
	if connected(t, at, 0, new) != new {
		t.Fatal("nothing came")
	}
	if _, err := third.bind(s, InstanceKey{3, 0}, at); err != nil {
		t.Fatal(err)
	}
	if left, err := s.Wait(); err != nil || left.InstanceKey != (InstanceKey{1, 0}) {
		t.Fatal(left, err)
	}
}

func TestProbesAreNotTakenOver(t *testing.T) {
	s, at, from := newSteering(t), reservePort(t, "127.0.0.1"), reservePort(t, "127.0.0.1").Port()
	old, new := serve(t, s, InstanceKey{1, 0}, at), serve(t, s, InstanceKey{2, 0}, at)
	apptest.Must(t, s.probe(from, InstanceKey{2, 0}))
	a := startSuccessor(t, s, nil)
	expect(t, a, "retire 9 0", "<nil>")
	if connected(t, at, from, old, new) != old {
		t.Fatal("the probe's port is still another one")
	}
}

func TestHandshakesAndBindingsTravel(t *testing.T) {
	s, at := newSteering(t), reservePort(t, "127.0.0.1")
	bound := newAppSocket(t, unix.AF_INET)
	if _, err := bound.bind(s, InstanceKey{1, 0}, at); err != nil {
		t.Fatal(err)
	}
	other := reservePort(t, "127.0.0.1")
	serve(t, s, InstanceKey{1, 0}, other)
	begun := sockdiag.Handshake{Local: other.Addr(), Remote: netip.MustParseAddrPort("192.0.2.1:7")}
	for _, g := range s.groups {
		g.Begun, g.Counted = []sockdiag.Handshake{begun}, true
	}
	state, err := s.Suspend()
	apptest.Must(t, err)
	text, err := json.Marshal(state)
	apptest.Must(t, err)
	s.Resume()
	var read SteeringState
	apptest.Must(t, json.Unmarshal(text, &read))
	fds := socket.Descriptors{}
	for _, fd := range read.FDs() {
		fds[fd], err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		apptest.Must(t, err)
	}
	heir, err := TakeOverSteering(read, fds, nil)
	apptest.Must(t, err)
	defer heir.Close()
	apptest.Must(t, heir.Listen(InstanceKey{1, 0}, bound.duplicate(), 8))
	for _, g := range heir.groups {
		if g.Key.At == other && !(g.Counted && slices.Equal(g.Begun, []sockdiag.Handshake{begun})) {
			t.Errorf("%v", g.Begun)
		}
	}
	if sockets := heir.Sockets(1); len(sockets) != 2 {
		t.Errorf("%v", sockets)
	}
}

func TestListenersAreTakenOver(t *testing.T) {
	for name, again := range ways {
		t.Run(name, func(t *testing.T) {
			path := t.TempDir() + "/s"
			unixListener, tcp := hold(t, "u=unix://"+path), hold(t, "t=127.0.0.1:0")
			r, w, err := os.Pipe()
			apptest.Must(t, err)
			defer r.Close()
			grant := &socket.SocketPlan{Stdin: -1, Predecessor: w}
			a := startSuccessor(t, nil, grant, unixListener, tcp)
			apptest.Must(t, grant.Close())
			again(t, a)
			apptest.Must(t, os.Remove(path))
			expect(t, a, "revive", "<nil>")
			for network, addr := range map[string]string{"unix": path, "tcp": tcp.Bound()} {
				conn, err := net.Dial(network, addr)
				apptest.Must(t, err)
				conn.Close()
			}
			expect(t, a, "clean", "true")
			expect(t, a, "close", "<nil>")
			if _, err := os.Lstat(path); !os.IsNotExist(err) {
				t.Errorf("the path was not removed: %v", err)
			}
			if n, err := r.Read(make([]byte, 1)); n > 0 || err == nil {
				t.Error("the pipe to the app has not ended")
			}
		})
	}
}

func TestWhatHasNotComeCannotBeTakenOver(t *testing.T) {
	for name, takeOver := range map[string]func() error{
		"listener": func() error {
			_, err := socket.TakeOverListener(socket.ListenerState{FD: 9, Bound: "here"}, socket.Descriptors{})
			return err
		},
		"grant": func() error {
			_, err := socket.TakeOverSocketPlan(socket.SocketPlanState{Predecessor: 9}, socket.Descriptors{})
			return err
		},
		"steering": func() error {
			_, err := TakeOverSteering(SteeringState{Watch: 9}, socket.Descriptors{}, nil)
			return err
		},
	} {
		if err := takeOver(); err == nil || !strings.Contains(err.Error(), "cannot take over") || !strings.Contains(err.Error(), "descriptor 9") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if fd, err := (socket.Descriptors{}).Take(-1); fd != -1 || err != nil {
		t.Error("no descriptor has to be none")
	}
	if s := (&socket.SocketPlan{}).State(); s.Predecessor != -1 {
		t.Error(s)
	}
}
