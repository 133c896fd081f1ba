package steering

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/gracerun/grace/handoff/internal/apptest"
	"github.com/gracerun/grace/handoff/internal/inetaddr"
	"golang.org/x/sys/unix"
)

// crowd is the sockets at one address, with whose they are.
type crowd struct {
	t       *testing.T
	s       *Steering
	at      netip.AddrPort
	members map[*appSocket]InstanceKey
}

// newCrowd has as many instances of each generation, from 1 on, as are given.
func newCrowd(t *testing.T, host string, instances ...int) *crowd {
	t.Helper()
	c := &crowd{t: t, s: newSteering(t), at: reservePort(t, host), members: map[*appSocket]InstanceKey{}}
	for generation, instances := range instances {
		for instance := range instances {
			c.serve(InstanceKey{generation + 1, instance})
		}
	}
	return c
}

func (c *crowd) serve(m InstanceKey) *appSocket {
	c.t.Helper()
	a := serve(c.t, c.s, m, c.at)
	c.members[a] = m
	return a
}

func (c *crowd) steer(to Split) {
	c.t.Helper()
	if kept, err := c.s.Steer(to); len(kept) > 0 || err != nil {
		c.t.Fatalf("steer to %+v: kept %v, %v", to, kept, err)
	}
}

func (c *crowd) sockets() (all []*appSocket) {
	for a := range c.members {
		if a.fd >= 0 {
			all = append(all, a)
		}
	}
	return all
}

// socketsOf are those of one generation.
func (c *crowd) socketsOf(generation int) []*appSocket {
	return slices.DeleteFunc(c.sockets(), func(a *appSocket) bool { return c.members[a].Generation != generation })
}

// crash ends an instance that is to be started again.
func (c *crowd) crash(m InstanceKey) {
	c.t.Helper()
	for _, a := range c.socketsOf(m.Generation) {
		if c.members[a] == m {
			a.close()
		}
	}
	apptest.Must(c.t, c.s.Vacate(m))
}

// restart has an instance take what was left to it.
func (c *crowd) restart(m InstanceKey) *appSocket {
	c.t.Helper()
	a := reusing(c.t)
	a.capture(c.s, m, c.at)
	c.members[a] = m
	return a
}

// draw makes connections, and counts them by who has got them.
func (c *crowd) draw(clients int) map[InstanceKey]int {
	c.t.Helper()
	got := map[InstanceKey]int{}
	for range clients {
		a := connected(c.t, c.at, 0, c.sockets()...)
		if a == nil {
			c.t.Fatal("nobody got a connection")
		}
		got[c.members[a]]++
	}
	return got
}

// checkShare draws, and looks whether each instance gets what is due to it.
func (c *crowd) checkShare(clients int, to Split) {
	c.t.Helper()
	got := c.draw(clients)
	parts := map[int]float64{to.Generation: 1 - float64(to.Share)/whole, to.Beside: float64(to.Share) / whole}
	beside := 0
	for m, n := range got {
		if m.Generation == to.Beside {
			beside += n
		}
	}
	if low, high := likely(clients, parts[to.Beside]); to.Share > 0 && (beside < low || beside > high) {
		c.t.Errorf("%d of %d connections came to generation %d by %+v, not %d to %d", beside, clients, to.Beside, to, low, high)
	}
	for a, m := range c.members {
		if a.fd < 0 {
			continue
		}
		part := parts[m.Generation] / float64(len(c.socketsOf(m.Generation)))
		low, high := 0, 0
		if part > 0 {
			low, high = likely(clients, part)
		}
		if got[m] < low || got[m] > high {
			c.t.Errorf("%v got %d of %d connections by %+v, not %d to %d", m, got[m], clients, to, low, high)
		}
	}
}

// checkAll is for a generation that gets all.
func (c *crowd) checkAll(generation int) {
	c.t.Helper()
	const clients = 40 // come to one generation of a split in half by chance once in 10^12 runs
	for m, n := range c.draw(clients) {
		if m.Generation != generation {
			c.t.Errorf("%v got %d connections, and not only generation %d", m, n, generation)
		}
	}
}

// half is a split that a few connections show.
var half = Split{Generation: 1, Beside: 2, Share: whole / 2}

func TestShareIsDrawn(t *testing.T) {
	for host, clients := range map[string]int{"127.0.0.1": 1000, "::1": 200, "::": 200} {
		t.Run(host, func(t *testing.T) {
			c := newCrowd(t, host, 2, 3, 1) // the third one gets nothing
			for _, share := range []int{500, 2500, 9000} {
				to := Split{Generation: 1, Beside: 2, Share: share}
				c.steer(to)
				c.checkShare(clients, to)
			}
			back := Split{Generation: 2, Beside: 1, Share: 500}
			c.steer(back)
			c.checkShare(clients, back)
		})
	}
}

func TestShareThatIsNone(t *testing.T) {
	c := newCrowd(t, "127.0.0.1", 1, 1)
	for _, to := range []Split{{1, 2, 0, false}, {1, 2, -5, true}, {1, 1, whole, true}, {1, 0, whole, false}, {2, 1, whole, false}, {2, 1, 2 * whole, true}, {1, 7, whole, false}} {
		c.steer(to)
		c.checkAll(1)
	}
}

// clientOf makes a connection from an address, and gives who has got it. It stays on its thread, which can have a network of
// its own.
func (c *crowd) clientOf(from netip.Addr) InstanceKey {
	c.t.Helper()
	fd, err := unix.Socket(inetaddr.Family(from), unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	apptest.Must(c.t, err)
	defer unix.Close(fd)
	apptest.Must(c.t, unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}))
	local, err := inetaddr.Sockaddr(netip.AddrPortFrom(from, 0))
	apptest.Must(c.t, err)
	apptest.Must(c.t, unix.Bind(fd, local))
	to := netip.MustParseAddr("::1")
	if from.Is4() {
		to = netip.MustParseAddr("127.0.0.1")
	}
	remote, err := inetaddr.Sockaddr(netip.AddrPortFrom(to, c.at.Port()))
	apptest.Must(c.t, err)
	apptest.Must(c.t, unix.Connect(fd, remote))
	a, conn := accepted(c.sockets()...)
	if a == nil {
		c.t.Fatal("nobody got a connection")
	}
	unix.Close(conn)
	return c.members[a]
}

// checkClients looks whether each client comes to the same generation always, and stays with the one beside while its
// share grows.
func (c *crowd) checkClients(clients []netip.Addr) {
	c.t.Helper()
	for _, beside := range []int{2, 3} {
		has := map[netip.Addr]bool{}
		for _, share := range []int{2000, 5000, 5000, whole} {
			c.steer(Split{Generation: 1, Beside: beside, Share: share, ByClient: true})
			got := map[netip.Addr]bool{}
			for _, client := range clients {
				if c.clientOf(client).Generation == beside {
					got[client] = true
				} else if has[client] {
					c.t.Fatalf("%v has changed its generation at a share of %d", client, share)
				}
			}
			if want := besides(c.t, Split{Beside: beside, Share: share}, clients); !maps.Equal(got, want) {
				c.t.Errorf("with a share of %d %v come to generation %d, and not %v", share, got, beside, want)
			}
			has = got
		}
	}
}

func TestClientStaysWithItsGeneration(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "0.0.0.0", "::"} {
		t.Run(host, func(t *testing.T) {
			c := newCrowd(t, host, 2, 2, 1)
			var clients []netip.Addr
			for n := range 100 {
				clients = append(clients, netip.AddrFrom4([4]byte{127, 0, byte(n), byte(1 + 2*n)}))
			}
			c.checkClients(clients)
		})
	}
}

// A client of IPv6 is its /64.
func TestNetworkStaysWithItsGeneration(t *testing.T) {
	apptest.RequireRoot(t)
	var clients []netip.Addr
	for n := range 60 {
		for interfaceID := range 2 {
			clients = append(clients, netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 0, 0, 0, byte(n), 15: byte(1 + interfaceID)}))
		}
	}
	onThread(func() {
		loneNetwork(t)
		for _, client := range clients {
			addAddress(t, client)
		}
		newCrowd(t, "::", 2, 2, 1).checkClients(clients)
	})
}

// onThread does the work on a thread that ends with it. The first one never ends, and the process is seen with what it has.
func onThread(work func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			work()
			return
		}
		onThread(work)
		runtime.UnlockOSThread()
	}()
	<-done
}

// loneNetwork gives the thread a loopback of its own.
func loneNetwork(t *testing.T) {
	t.Helper()
	apptest.Must(t, unix.Unshare(unix.CLONE_NEWNET))
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	apptest.Must(t, err)
	defer unix.Close(fd)
	up, err := unix.NewIfreq("lo")
	apptest.Must(t, err)
	up.SetUint16(unix.IFF_UP)
	apptest.Must(t, unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, up))
}

// addAddress adds one to the first interface, the loopback.
func addAddress(t *testing.T, address netip.Addr) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	apptest.Must(t, err)
	defer unix.Close(fd)
	request := struct { // in6_ifreq in linux/ipv6.h
		address [16]byte
		prefix  uint32
		index   int32
	}{address.As16(), 128, 1}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCSIFADDR, uintptr(unsafe.Pointer(&request)))
	if errno != 0 {
		t.Fatal(errno)
	}
	apptest.Eventually(t, "the address can be bound", func() bool { // the kernel does it in a worker (addrconf_dad_work)
		fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		apptest.Must(t, err)
		defer unix.Close(fd)
		return unix.Bind(fd, &unix.SockaddrInet6{Addr: address.As16()}) == nil
	})
}

func TestProbesPassByAShare(t *testing.T) {
	for _, byClient := range []bool{false, true} {
		c, port := newCrowd(t, "127.0.0.1", 2, 2, 1), reservePort(t, "::").Port()
		to := half
		to.ByClient = byClient
		c.steer(to)
		for a, m := range c.members {
			apptest.Must(t, c.s.probe(port, m))
			for range 10 {
				if connected(t, c.at, port, a) == nil {
					t.Fatalf("the probe of %v missed", m)
				}
			}
		}
		if got := c.draw(40); got[InstanceKey{3, 0}] > 0 {
			t.Error("an ordinary connection strayed")
		}
	}
}

func TestShareOfWhoHasDiedGoesToTheOther(t *testing.T) {
	for _, dies := range []int{1, 2} {
		for _, instances := range []int{1, 2} {
			t.Run(fmt.Sprintf("generation %d of %d", dies, instances), func(t *testing.T) {
				c, lives := newCrowd(t, "127.0.0.1", instances, instances), 3-dies
				c.steer(half)
				for instance := range instances {
					c.checkShare(300, half)
					c.crash(InstanceKey{dies, instance})
				}
				c.checkAll(lives)
				for instance := range instances {
					c.restart(InstanceKey{dies, instance})
				}
				c.checkShare(300, half)
				for instance := range instances {
					c.crash(InstanceKey{dies, instance})
					apptest.Must(t, c.s.Retire(InstanceKey{dies, instance}))
				}
				c.checkAll(lives)
				for instance := range instances {
					c.crash(InstanceKey{lives, instance})
				}
				waits := connect(t, c.at, 0)
				defer waits.Close()
				for instance := range instances {
					c.restart(InstanceKey{lives, instance})
				}
				if a, fd := accepted(c.sockets()...); a == nil {
					t.Error("who waited was left")
				} else {
					unix.Close(fd)
				}
			})
		}
	}
}

// Where nobody of either generation is left, and one of the other is to come back, who connects waits for that.
func TestWhoHasDiedBesideIsWaitedFor(t *testing.T) {
	c := newCrowd(t, "127.0.0.1", 1, 1)
	c.steer(half)
	c.crash(first)
	apptest.Must(t, c.s.Retire(first))
	c.serve(InstanceKey{3, 0})
	c.crash(second)
	waits := connect(t, c.at, 0)
	defer waits.Close()
	if a, fd := accepted(c.restart(second)); a == nil {
		t.Error("the candidate got a connection")
	} else {
		unix.Close(fd)
	}
}

// A socket that an app shuts down goes without a word.
func TestShareOfWhoHasShutDownGoesToTheOther(t *testing.T) {
	c := newCrowd(t, "127.0.0.1", 1, 1)
	c.steer(half)
	beside := c.socketsOf(2)[0]
	apptest.Must(t, unix.Shutdown(beside.fd, unix.SHUT_RDWR))
	if _, err := c.s.Wait(); err != nil {
		t.Fatal(err)
	}
	beside.close()
	_, err := c.s.Queued(1)
	apptest.Must(t, err)
	c.checkAll(1)
	if got := c.s.Queues(2); len(got) > 0 {
		t.Error(got)
	}
}

func TestSplitOfPlacesThatOnlyOneHas(t *testing.T) {
	s, both, first, second, third := newSteering(t), reservePort(t, "127.0.0.1"), reservePort(t, "127.0.0.1"), reservePort(t, "127.0.0.1"), reservePort(t, "127.0.0.1")
	sockets := map[netip.AddrPort][]*appSocket{}
	for _, had := range []struct {
		generation int
		at         []netip.AddrPort
	}{{1, []netip.AddrPort{both, first}}, {3, []netip.AddrPort{second, third}}, {2, []netip.AddrPort{both, second}}} {
		for _, at := range had.at {
			sockets[at] = append(sockets[at], serve(t, s, InstanceKey{had.generation, 0}, at))
		}
	}
	for _, share := range []int{0, 1, whole / 2, whole} {
		kept, err := s.Steer(Split{Generation: 1, Beside: 2, Share: share})
		if err != nil || !slices.Equal(kept, []string{third.String()}) {
			t.Errorf("kept %v, %v", kept, err)
		}
		for at, want := range map[netip.AddrPort]*appSocket{first: sockets[first][0], second: sockets[second][1], third: sockets[third][0]} {
			for range 20 {
				if connected(t, at, 0, want) == nil {
					t.Fatalf("a connection to %v strayed with a share of %d", at, share)
				}
			}
		}
	}
	serve(t, s, InstanceKey{1, 1}, second) // which may not be ready
	for range 20 {
		if connected(t, second, 0, sockets[second][1]) == nil {
			t.Fatal("a connection strayed to a generation that has come since")
		}
	}
	if kept, err := s.Steer(Split{Generation: 1}); err != nil || !slices.Equal(kept, []string{third.String()}) {
		t.Errorf("kept %v, %v", kept, err)
	}
}

// A split is made where the selected generation has just crashed as well: what it has left waits for it to come back.
func TestSplitBesideWhatHasCrashed(t *testing.T) {
	c := newCrowd(t, "127.0.0.1", 1, 1)
	c.crash(InstanceKey{1, 0})
	c.steer(half)
	c.checkAll(2)
	c.restart(InstanceKey{1, 0})
	c.checkShare(300, half)
}

func TestPathsStayWithTheSelectedGeneration(t *testing.T) {
	s, at := newPathSteering(t)
	first, second := servePath(t, s, InstanceKey{1, 0}, at), servePath(t, s, InstanceKey{2, 0}, at)
	steer := func(to Split, want *appSocket) {
		t.Helper()
		if kept, err := s.Steer(to); len(kept) > 0 || err != nil {
			t.Fatal(kept, err)
		}
		for range 20 {
			checkPath(t, at, want)
		}
	}
	steer(Split{Generation: 1, Beside: 2, Share: 9999}, first)
	steer(Split{Generation: 2, Beside: 1, Share: 9999}, second)
	steer(Split{Generation: 3, Beside: 1, Share: 1}, first)
	first.close()
	apptest.Must(t, s.Vacate(InstanceKey{1, 0}))
	steer(half, second)
}

// Who serves beside is not replaced, and what begins to come to it is none that comes late.
func TestQueuedOfWhoServesBeside(t *testing.T) {
	c := newCrowd(t, "127.0.0.1", 1, 1)
	for a := range c.members {
		apptest.Must(t, unix.SetsockoptInt(a.fd, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 30))
	}
	c.steer(Split{Generation: 1, Beside: 2, Share: whole})
	begun := connect(t, c.at, 0)
	defer begun.Close()
	checkQueued(t, c.s, 1, 0)
	checkQueued(t, c.s, 2, 0)
	c.steer(Split{Generation: 1, Beside: 2, Share: 1})
	checkQueued(t, c.s, 2, 0)
	c.steer(Split{Generation: 2, Beside: 1, Share: 1})
	checkQueued(t, c.s, 2, 0)
	checkQueued(t, c.s, 1, 0)
	c.steer(Split{Generation: 1, Beside: 2, Share: 1})
	checkQueued(t, c.s, 2, 0)
	c.steer(Split{Generation: 1})
	checkQueued(t, c.s, 2, 1)
	checkQueued(t, c.s, 1, 0)
	_, err := begun.Write([]byte("x"))
	apptest.Must(t, err)
	checkQueued(t, c.s, 2, 1)
	if a, fd := accepted(c.socketsOf(2)...); a == nil {
		t.Error("the connection did not come to the generation that had got its SYN")
	} else {
		unix.Close(fd)
	}
	checkQueued(t, c.s, 2, 0)
}

// What an instance beside the selected generation has is given to no other one while it lives.
func TestWhoIsReadyBesideHasTheQueueAlone(t *testing.T) {
	for name, settle := range map[string]func(*crowd){
		"ready":   func(c *crowd) { apptest.Must(t, c.s.Retire(first)); c.s.Ready(second) },
		"steered": func(c *crowd) { c.steer(half) },
	} {
		t.Run(name, func(t *testing.T) {
			c := newCrowd(t, "127.0.0.1", 1, 1)
			c.steer(half)
			c.crash(first)
			c.crash(second)
			c.restart(second)
			lives := c.socketsOf(2)[0]
			settle(c)
			for instance := range 2 { // one may have what the selected generation has left
				if next := c.restart(InstanceKey{3, instance}); next.inode == lives.inode {
					t.Error("another one has got the socket")
				}
			}
		})
	}
}

func TestNobodyTakesClientsOfAShare(t *testing.T) {
	s, at := newSteering(t), reservePort(t, "127.0.0.1")
	anywhere := netip.AddrPortFrom(netip.IPv4Unspecified(), at.Port())
	serve(t, s, InstanceKey{2, 0}, anywhere)
	first := serve(t, s, InstanceKey{1, 0}, anywhere)
	_, err := s.Steer(half)
	apptest.Must(t, err)
	first.close()
	apptest.Must(t, s.Vacate(InstanceKey{1, 0}))
	for generation, want := range map[int]Decision{1: Steered, 2: Steered, 3: Conflict} {
		if decision, err := s.Bind(InstanceKey{generation, 1}, newAppSocket(t, unix.AF_INET).fd, at); decision != want {
			t.Errorf("generation %d: %v, %v", generation, decision, err)
		}
	}
}

func TestSplitIsTakenOver(t *testing.T) {
	for name, again := range ways {
		for _, byClient := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", by client: ", byClient), func(t *testing.T) {
				c := newCrowd(t, "127.0.0.1", 1, 2)
				to := Split{Generation: 1, Beside: 2, Share: 3000, ByClient: byClient}
				c.steer(to)
				a := startSuccessor(t, c.s, nil)
				again(t, a)
				expect(t, a, "retire 9 0", "<nil>") // attaches all
				if !byClient {
					c.checkShare(1000, to)
				}
				for n := range 50 {
					client := netip.AddrFrom4([4]byte{127, 0, 0, byte(n + 1)})
					if got, want := c.clientOf(client).Generation == 2, besides(t, to, []netip.Addr{client})[client]; byClient && got != want {
						t.Errorf("%v has changed its generation", client)
					}
				}
				expect(t, a, "cutover 2", "[] <nil>")
				c.checkAll(2)
			})
		}
	}
}

// A state without a split is that of a version that knows none.
func TestStateWithoutASplit(t *testing.T) {
	c := newCrowd(t, "127.0.0.1", 1, 1)
	for to, want := range map[Split]bool{{Generation: 1}: false, half: true} {
		c.steer(to)
		state, err := c.s.Copy(func(uint64, int) {})
		apptest.Must(t, err)
		text, err := json.Marshal(state)
		apptest.Must(t, err)
		for _, field := range []string{"Beside", "Share"} {
			if strings.Contains(string(text), `"`+field+`"`) != want {
				t.Errorf("%s: %s", field, text)
			}
		}
	}
}

// After a kill connections go by the split while the order is found, and afterwards.
func TestSplitAfterAKill(t *testing.T) {
	for _, ending := range []bool{false, true} {
		for _, byClient := range []bool{false, true} {
			t.Run(fmt.Sprint("sockets have ended: ", ending, ", by client: ", byClient), func(t *testing.T) {
				c := newCrowd(t, "127.0.0.1", 2, 2, 3)
				to := Split{Generation: 1, Beside: 2, Share: 3000, ByClient: byClient}
				c.steer(to)
				apps := c.sockets()
				var ended []int
				for i, a := range apps {
					if m := c.members[a]; ending && (m.Generation == 3 || m == InstanceKey{1, 0}) {
						ended = append(ended, i)
					}
				}
				rand.Shuffle(len(ended), func(i, j int) { ended[i], ended[j] = ended[j], ended[i] })
				state, fds := killed(t, c.s, ended, apps)
				next, err := TakeOverSteering(state, fds, nil)
				apptest.Must(t, err)
				defer next.Close()
				if ending {
					apptest.Must(t, next.Retire(InstanceKey{9, 0})) // attaches all
				}
				if byClient {
					for n := range 50 {
						client := netip.AddrFrom4([4]byte{127, 0, 0, byte(n + 1)})
						if got, want := c.clientOf(client).Generation == 2, besides(t, to, []netip.Addr{client})[client]; got != want {
							t.Errorf("%v has changed its generation", client)
						}
					}
					return
				}
				c.checkShare(1000, to)
			})
		}
	}
}

// Whatever share there is, and while it changes, each client is answered, by one of the two.
func TestShareLosesNoConnection(t *testing.T) {
	s, at := newSteering(t), reservePort(t, "127.0.0.1")
	generations := []*servers{startServers(t, s, 1, at), startServers(t, s, 2, at), startServers(t, s, 3, at)}
	stop := loadOn(t, at)
	for range 500 {
		to := Split{Generation: 1 + rand.IntN(3), Beside: rand.IntN(4), Share: rand.IntN(whole + 1), ByClient: rand.IntN(2) == 0}
		_, err := s.Steer(to)
		apptest.Must(t, err)
		got, err := askOnce(at)
		if err != nil || !to.gets(got) || to.Share == 0 && got != to.Generation {
			t.Fatalf("generation %d answered by %+v, %v", got, to, err)
		}
	}
	if answered := stop(); answered == 0 {
		t.Error("nobody was answered")
	}
	for _, v := range generations {
		v.stop(t, s)
	}
}

// Who starts gets nothing as long as another one of its generation serves, and its part when it is ready; also where it takes up
// what one has left that has crashed.
func TestWhoIsNotReadyGetsNothingBesideOthers(t *testing.T) {
	for _, to := range []Split{{Generation: 1, Beside: 9}, {Generation: 2, Beside: 1, Share: 5000}, {Generation: 1, Beside: 2, Share: 5000}} {
		t.Run(fmt.Sprintf("%+v", to), func(t *testing.T) {
			c := newCrowd(t, "127.0.0.1", 1, 1)
			apptest.Must(t, c.s.Ready(InstanceKey{1, 0}))
			apptest.Must(t, c.s.Ready(InstanceKey{2, 0}))
			c.steer(to)
			late := InstanceKey{1, 1}
			for _, come := range []func(InstanceKey) *appSocket{c.serve, c.restart} {
				come(late)
				for n, m := range []InstanceKey{late, {1, 0}} {
					if got := c.draw(40)[m]; (got > 0) != (n > 0) {
						t.Errorf("%v got %d connections before %v was ready", m, got, late)
					}
				}
				apptest.Must(t, c.s.Ready(late))
				c.checkShare(300, to)
				c.crash(late)
			}
		})
	}
}

// Nobody is ready: clients wait for whoever is the first.
func TestNobodyIsReady(t *testing.T) {
	c := newCrowd(t, "127.0.0.1", 3)
	c.steer(Split{Generation: 1})
	c.checkShare(300, Split{Generation: 1, Beside: 9})
	apptest.Must(t, c.s.Ready(InstanceKey{1, 1}))
	if got := c.draw(40); got[InstanceKey{1, 1}] != 40 {
		t.Errorf("connections came to %v", got)
	}
}

// It is known to the next process who is ready, and under which name; and of a state without that all are.
func TestWhoIsReadyIsTakenOver(t *testing.T) {
	for _, older := range []bool{false, true} {
		c := newCrowd(t, "127.0.0.1", 2)
		c.steer(Split{Generation: 1})
		apptest.Must(t, c.s.Ready(InstanceKey{1, 0}))
		c.serve(InstanceKey{-5, 1})
		apptest.Must(t, c.s.Ready(InstanceKey{-5, 1}))
		c.regroup(replaces(1, 1)...)
		apps := c.sockets()
		state, fds := killed(t, c.s, nil, apps)
		if older {
			state.Ready = nil
		}
		next, err := TakeOverSteering(state, fds, nil)
		apptest.Must(t, err)
		defer next.Close()
		c.s = next
		c.serve(InstanceKey{1, 2})
		apptest.Must(t, next.Retire(InstanceKey{9, 0})) // attaches all
		got := c.draw(60)
		if got[InstanceKey{1, 0}] == 0 || got[InstanceKey{1, 1}] == 0 || got[InstanceKey{1, 2}] > 0 {
			t.Errorf("connections came to %v", got)
		}
	}
}
