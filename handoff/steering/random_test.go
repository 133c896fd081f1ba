package steering

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/gracerun/grace/handoff/internal/apptest"
	"github.com/gracerun/grace/handoff/internal/inetaddr"
	"golang.org/x/sys/unix"
)

// randomly gives chance, by a seed that is printed: GRACE_TEST_SEED repeats it.
func randomly(t *testing.T) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("GRACE_TEST_SEED"); text != "" {
		var err error
		seed, err = strconv.ParseUint(text, 10, 64)
		apptest.Must(t, err)
	}
	t.Logf("GRACE_TEST_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// anApp is an instance that does with its sockets what comes to its mind. Each socket has a descriptor in each of its
// processes.
type anApp struct {
	InstanceKey
	sockets []*aSocket
	forks   int
}

type aSocket struct {
	fds       []int
	inode     uint64
	at        netip.AddrPort
	listening bool
	shut      bool
}

// world has the apps, and knows of them what the kernel does.
type world struct {
	*testing.T
	*rand.Rand
	s      *Steering
	places []netip.AddrPort
	apps   []*anApp
	to     Split
	newest int
	moved  int // instances
	deeds  []string
}

func (w *world) did(format string, args ...any) {
	w.deeds = append(w.deeds, fmt.Sprintf(format, args...))
}

// live is asked by the Steering.
func (w *world) live(_ InstanceKey, inode uint64) bool {
	return slices.ContainsFunc(w.apps, func(a *anApp) bool {
		return slices.ContainsFunc(a.sockets, func(s *aSocket) bool { return s.inode == inode })
	})
}

func (w *world) app(m InstanceKey) *anApp {
	i := slices.IndexFunc(w.apps, func(a *anApp) bool { return a.InstanceKey == m })
	if i < 0 {
		w.apps = append(w.apps, &anApp{InstanceKey: m})
		return w.apps[len(w.apps)-1]
	}
	return w.apps[i]
}

// bind plays an app that opens a socket at an address, as it is captured. It has none there that listens.
func (w *world) bind(a *anApp, at netip.AddrPort) {
	if slices.ContainsFunc(a.sockets, func(s *aSocket) bool { return s.at == at && !s.shut }) {
		return
	}
	w.did("%v binds %v", a.InstanceKey, at.Port())
	socket := reusing(w.T)
	left, err := w.s.Take(a.InstanceKey, socket.fd, at)
	apptest.Must(w.T, err)
	if left >= 0 {
		socket.replaceBy(left)
	} else if decision, err := socket.bind(w.s, a.InstanceKey, at); decision != Steered || err != nil {
		w.Fatalf("%v, %v after %q", decision, err, w.deeds)
	}
	w.adopt(a, socket, at)
	w.review(a)
}

// adopt gives the descriptor to the app's processes.
func (w *world) adopt(a *anApp, socket *appSocket, at netip.AddrPort) {
	fds := []int{socket.fd}
	socket.fd = -1
	a.sockets = append(a.sockets, &aSocket{fds: fds, inode: socket.inode, at: at})
}

func (w *world) listen(a *anApp, s *aSocket) {
	if slices.ContainsFunc(a.sockets, func(o *aSocket) bool { return o != s && o.at == s.at && o.listening && !o.shut }) {
		return // without grace the kernel would refuse it
	}
	w.did("%v listens on %v", a.InstanceKey, s.at.Port())
	fd, err := unix.FcntlInt(uintptr(s.fds[0]), unix.F_DUPFD_CLOEXEC, 0)
	apptest.Must(w.T, err)
	if err := w.s.Listen(a.InstanceKey, fd, 64); err != nil {
		w.Fatalf("%v after %q", err, w.deeds)
	}
	s.listening = true
	w.eachOf(s, func(other *aSocket) { other.shut = false })
}

// eachOf visits the socket as each app has it.
func (w *world) eachOf(s *aSocket, visit func(*aSocket)) {
	for _, a := range w.apps {
		for _, other := range a.sockets {
			if other.inode == s.inode {
				visit(other)
			}
		}
	}
}

// shutdown ends a listener for all who have it. Who waits for connections there gets an error, and listens again or not.
func (w *world) shutdown(a *anApp, s *aSocket) {
	if !s.listening || s.shut {
		return
	}
	w.did("%v shuts down %v", a.InstanceKey, s.at.Port())
	apptest.Must(w.T, unix.Shutdown(s.fds[0], unix.SHUT_RDWR))
	w.eachOf(s, func(other *aSocket) { other.shut, other.listening = true, false })
}

// drop closes one descriptor of a socket.
func (w *world) drop(a *anApp, s *aSocket) {
	w.did("%v closes one of %d descriptors of %v", a.InstanceKey, len(s.fds), s.at.Port())
	apptest.Must(w.T, unix.Close(s.fds[len(s.fds)-1]))
	if s.fds = s.fds[:len(s.fds)-1]; len(s.fds) == 0 {
		a.sockets = slices.DeleteFunc(a.sockets, func(o *aSocket) bool { return o == s })
	}
}

func (w *world) review(a *anApp) {
	w.did("%v is reviewed", a.InstanceKey)
	var closed []uint64
	for _, socket := range w.s.Sockets(a.Generation) {
		if socket.InstanceKey == a.InstanceKey && !w.live(a.InstanceKey, socket.Inode) {
			closed = append(closed, socket.Inode)
		}
	}
	apptest.Must(w.T, w.s.Forget(closed...))
}

func (w *world) fork(a *anApp) {
	if a.forks++; a.forks > 3 {
		return
	}
	w.did("%v forks", a.InstanceKey)
	for _, s := range a.sockets {
		fd, err := unix.FcntlInt(uintptr(s.fds[0]), unix.F_DUPFD_CLOEXEC, 0)
		apptest.Must(w.T, err)
		s.fds = append(s.fds, fd)
	}
}

// exit ends an instance, after which it is started again or not.
func (w *world) exit(a *anApp) {
	for len(a.sockets) > 0 {
		w.drop(a, a.sockets[0])
	}
	w.apps = slices.DeleteFunc(w.apps, func(o *anApp) bool { return o == a })
	w.did("%v ends", a.InstanceKey)
	apptest.Must(w.T, w.s.Vacate(a.InstanceKey))
	if !w.to.gets(a.Generation) {
		apptest.Must(w.T, w.s.Retire(a.InstanceKey))
	}
}

// upgrade selects another generation, where that listens, or gives it a share.
func (w *world) upgrade(generation int) {
	to := Split{Generation: generation}
	if w.IntN(2) == 0 && generation != w.to.Generation {
		to = Split{Generation: w.to.Generation, Beside: generation, Share: 1 + w.IntN(whole), ByClient: w.IntN(2) == 0}
		if w.IntN(4) == 0 {
			to.Share = whole
		}
	}
	w.did("steers to %+v", to)
	w.to = to
	_, err := w.s.Steer(to)
	apptest.Must(w.T, err)
}

// regroup gives an instance a name that nobody has, or two of them each the other's.
func (w *world) regroup() {
	a, b := w.apps[w.IntN(len(w.apps))], w.apps[w.IntN(len(w.apps))]
	moves := []Move{{a.InstanceKey, b.InstanceKey}, {b.InstanceKey, a.InstanceKey}}
	if a == b {
		w.moved++
		moves = []Move{{a.InstanceKey, InstanceKey{-1 - w.moved, a.Instance}}}
	}
	w.did("regroups %v", moves)
	apptest.Must(w.T, w.s.Regroup(moves))
	a.InstanceKey = moves[0].To
	if a != b {
		b.InstanceKey = moves[1].To
	}
}

func (w *world) act() {
	if len(w.apps) > 0 && w.IntN(20) == 0 {
		w.regroup()
		return
	}
	generation := max(1, w.newest-w.IntN(3))
	if w.IntN(8) == 0 {
		w.newest++
		generation = w.newest
	}
	a := w.app(InstanceKey{generation, w.IntN(3)})
	if w.IntN(4) == 0 {
		a = w.apps[w.IntN(len(w.apps))]
	}
	at := w.places[w.IntN(len(w.places))]
	var s *aSocket
	if len(a.sockets) > 0 {
		s = a.sockets[w.IntN(len(a.sockets))]
	}
	switch deed := w.IntN(20); {
	case s == nil || deed < 4:
		w.bind(a, at)
	case deed < 10:
		w.listen(a, s)
	case deed == 10:
		w.shutdown(a, s)
	case deed < 13:
		w.drop(a, s)
	case deed == 13:
		w.fork(a)
	case deed < 16:
		w.exit(a)
	case deed == 16 && s.listening && !s.shut:
		w.upgrade(a.Generation)
	case deed == 17:
		w.did("%v is ready", a.InstanceKey)
		w.s.Ready(a.InstanceKey)
	case deed == 18:
		w.review(a)
	}
}

// check compares what the Steering has with what the kernel does.
func (w *world) check() {
	w.Helper()
	apptest.Must(w.T, w.s.endProbe(1)) // sees who has left
	for at, g := range w.s.groups {
		if len(g.Members) == 0 || len(g.choice().selected) == 0 {
			w.Fatalf("nobody is chosen at %v after %q", at, w.deeds)
		}
	}
	for _, at := range w.places {
		w.checkPlace(at)
	}
}

// checkPlace connects: the connection comes to the generations that get some, if anything of them listens.
func (w *world) checkPlace(at netip.AddrPort) {
	if !w.steered(at) {
		return
	}
	selected, known := w.listening(w.to.Generation, at)
	listening, alsoKnown := w.listening(w.to.Beside, at)
	if w.to.Share < whole || len(listening) == 0 {
		listening = append(listening, selected...)
	}
	if !known || !alsoKnown || len(listening) == 0 {
		return
	}
	conn, err := net.DialTimeout("tcp", at.String(), apptest.Patience)
	if err != nil {
		w.Fatalf("%v after %q", err, w.deeds)
	}
	defer conn.Close()
	if !w.accepts(listening, conn) {
		w.Fatalf("a connection did not come where %+v says at %v after %q", w.to, at.Port(), w.deeds)
	}
}

// listening are a generation's sockets there; if there are any that no other generation listens on, only those. While some
// may wait in one that it has closed, which is not known yet or which another app has, they are not known.
func (w *world) listening(generation int, at netip.AddrPort) (all []*aSocket, known bool) {
	var alone []*aSocket
	for _, a := range w.apps {
		if a.Generation != generation {
			continue
		}
		if w.closed(a) {
			return nil, false
		}
		for _, s := range a.sockets {
			if s.at != at || !s.listening || s.shut {
				continue
			}
			if all = append(all, s); !w.shared(generation, s) {
				alone = append(alone, s)
			}
		}
	}
	if len(alone) > 0 {
		return alone, true
	}
	return all, true
}

// shared tells whether an instance of another generation listens on the socket, too.
func (w *world) shared(generation int, s *aSocket) bool {
	return slices.ContainsFunc(w.apps, func(a *anApp) bool {
		return a.Generation != generation && slices.ContainsFunc(a.sockets, func(o *aSocket) bool {
			return o.inode == s.inode && o.listening
		})
	})
}

// closed tells whether the Steering still has a socket of the app's which that has closed.
func (w *world) closed(a *anApp) bool {
	return slices.ContainsFunc(w.s.Sockets(a.Generation), func(steered SteeredSocket) bool {
		return steered.InstanceKey == a.InstanceKey &&
			!slices.ContainsFunc(a.sockets, func(s *aSocket) bool { return s.inode == steered.Inode })
	})
}

// steered tells whether the place has followed the split: one where neither had anything stays with another.
func (w *world) steered(at netip.AddrPort) bool {
	g := w.s.groups[groupKey{At: at}]
	return g != nil && g.split() == w.to
}

// accepts takes what waits in the sockets until it is the connection.
func (w *world) accepts(sockets []*aSocket, conn net.Conn) bool {
	port := netip.MustParseAddrPort(conn.LocalAddr().String()).Port()
	for deadline := time.Now().Add(apptest.Patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		for _, s := range sockets {
			for fd, from, err := unix.Accept4(s.fds[0], unix.SOCK_CLOEXEC); err == nil; fd, from, err = unix.Accept4(s.fds[0], unix.SOCK_CLOEXEC) {
				apptest.Must(w.T, unix.Close(fd))
				if inetaddr.Of(from).Port() == port {
					return true
				}
			}
		}
	}
	return false
}

// Whatever apps do with their sockets, in whatever order: no group is without a socket, nothing panics, and connections
// come to the selected generation.
func TestWhateverAppsDo(t *testing.T) {
	w := &world{T: t, Rand: randomly(t), to: Split{Generation: 1}, newest: 1}
	for range 10 {
		w.places = []netip.AddrPort{reservePort(t, "127.0.0.1"), apptest.FreePort(t, "127.0.0.1")}
		w.s = newSteering(t)
		w.s.live, w.deeds = w.live, nil
		for range 150 {
			w.act()
			w.check()
		}
		for _, a := range slices.Clone(w.apps) {
			w.exit(a)
			apptest.Must(t, w.s.Retire(a.InstanceKey))
		}
		apptest.Must(t, errors.Join(w.s.Close()))
	}
}
