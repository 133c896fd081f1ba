package steering

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"github.com/gracerun/grace/handoff/internal/apptest"
	"golang.org/x/sys/unix"
)

// rollout plays upgrades of an app whose instances crash at any time before the cutover, and whose candidates fail.
type rollout struct {
	*testing.T
	*rand.Rand
	q         queueOf
	instances int // of each generation
	selected  int
	candidate int // 0 for none
	started   map[InstanceKey]*instance
	clients   []net.Conn
	deeds     []string
}

type instance struct {
	*appSocket
	listening bool
}

func (r *rollout) did(format string, args ...any) {
	r.deeds = append(r.deeds, fmt.Sprintf(format, args...))
}

// start has an instance bind, and listen at once or later.
func (r *rollout) start(m InstanceKey) {
	if i := r.started[m]; i != nil {
		r.listen(m)
		return
	}
	if r.q.bind == nil || r.IntN(2) == 0 {
		r.did("%v serves", m)
		r.started[m] = &instance{r.q.serve(m), true}
		return
	}
	r.did("%v binds", m)
	r.started[m] = &instance{r.q.bind(m), false}
}

func (r *rollout) listen(m InstanceKey) {
	if i := r.started[m]; !i.listening {
		r.did("%v listens", m)
		apptest.Must(r.T, r.q.s.Listen(m, i.duplicate(), 64))
		i.listening = true
	}
}

func (r *rollout) crash(m InstanceKey) {
	if i := r.started[m]; i != nil {
		r.did("%v crashes", m)
		i.close()
		delete(r.started, m)
		apptest.Must(r.T, r.q.s.Vacate(m))
	}
}

func (r *rollout) ready(m InstanceKey) {
	if i := r.started[m]; i != nil && i.listening {
		r.did("%v is ready", m)
		r.q.s.Ready(m)
	}
}

// fail ends a candidate.
func (r *rollout) fail() {
	r.did("generation %d fails", r.candidate)
	r.end(r.candidate, r.crash)
	r.candidate = 0
}

func (r *rollout) end(generation int, leave func(InstanceKey)) {
	for slot := range r.instances {
		leave(InstanceKey{generation, slot})
	}
	for slot := range r.instances {
		apptest.Must(r.T, r.q.s.Retire(InstanceKey{generation, slot}))
	}
}

// promote has the candidate serve, and then the generation before end, as soon as it has accepted who waits there.
func (r *rollout) promote() {
	for slot := range r.instances {
		for _, m := range []InstanceKey{{r.selected, slot}, {r.candidate, slot}} {
			r.start(m)
			r.listen(m)
		}
	}
	r.did("cutover to %d", r.candidate)
	if kept, err := r.q.s.Steer(Split{Generation: r.candidate}); len(kept) > 0 || err != nil {
		r.Fatalf("kept %v, %v after %q", kept, err, r.deeds)
	}
	for slot := range r.instances {
		r.ready(InstanceKey{r.candidate, slot})
	}
	replaced := r.selected
	r.selected, r.candidate = r.candidate, 0
	apptest.Eventually(r.T, fmt.Sprintf("nobody waits for generation %d after %q", replaced, r.deeds), func() bool {
		r.answer()
		queued, err := r.q.s.Queued(replaced)
		apptest.Must(r.T, err)
		return queued == 0
	})
	r.end(replaced, r.crash)
}

// answer has all who listen accept who waits.
func (r *rollout) answer() {
	for _, i := range r.started {
		for fd := -1; i.listening; unix.Close(fd) {
			if fd = i.accept(); fd < 0 {
				break
			}
			_, err := unix.Write(fd, []byte("!"))
			apptest.Must(r.T, err)
		}
	}
}

func (r *rollout) act() {
	current := InstanceKey{r.selected, r.IntN(r.instances)}
	switch deed := r.IntN(12); {
	case deed < 2:
		r.crash(current)
	case deed < 4:
		r.start(current)
	case deed == 4:
		r.ready(current)
	case deed < 8:
		if r.candidate == 0 {
			r.candidate = r.selected + 1 + r.IntN(2)
		}
		r.start(InstanceKey{r.candidate, r.IntN(r.instances)})
	case deed == 8 && r.candidate > 0:
		r.fail()
	case deed == 9 && r.candidate > 0:
		r.promote()
	case deed == 10:
		r.did("answers")
		r.answer()
	}
}

// settle has the selected generation serve, which answers all.
func (r *rollout) settle() {
	if r.candidate > 0 {
		r.fail()
	}
	for slot := range r.instances {
		r.start(InstanceKey{r.selected, slot})
		r.listen(InstanceKey{r.selected, slot})
		r.ready(InstanceKey{r.selected, slot})
	}
	for n, client := range r.clients {
		r.check(n, client)
	}
}

func (r *rollout) check(n int, client net.Conn) {
	answered := make(chan error, 1)
	apptest.Must(r.T, client.SetReadDeadline(time.Now().Add(apptest.Patience)))
	go func() {
		_, err := io.ReadFull(client, make([]byte, 1))
		answered <- err
	}()
	for {
		r.answer()
		select {
		case err := <-answered:
			if err != nil {
				r.Fatalf("client %d of %d: %v after %q", n, len(r.clients), err, r.deeds)
			}
			apptest.Must(r.T, client.Close())
			return
		case <-time.After(time.Millisecond):
		}
	}
}

// A candidate that fails leaves who waits to the generation before, also where that has got its socket from another.
func TestFailedUpgradeAfterAnotherLeavesWhoWaits(t *testing.T) {
	eachQueue(t, func(t *testing.T, q queueOf) {
		third := InstanceKey{3, 0}
		q.crash(t, first, q.serve(first))
		current := q.serve(second)
		_, err := q.s.Steer(Split{Generation: 2})
		apptest.Must(t, err)
		apptest.Must(t, q.s.Retire(first))
		q.crash(t, second, current)
		q.waiting(t, 5)
		q.crash(t, third, q.serve(third))
		apptest.Must(t, q.s.Retire(third))
		checkAnswered(t, 5, q.serve(second))
	})
}

// An instance that is ready, and crashes once more, takes up the queue that a candidate shared with it.
func TestASecondCrashLeavesWhoWaitsToTheRestart(t *testing.T) {
	eachQueue(t, func(t *testing.T, q queueOf) {
		q.crash(t, first, q.serve(first))
		candidate, again := q.serve(second), q.serve(first)
		q.s.Ready(first)
		q.waiting(t, 5)
		q.crash(t, first, again)
		again = q.serve(first)
		q.crash(t, second, candidate)
		apptest.Must(t, q.s.Retire(second))
		checkAnswered(t, 5, again)
	})
}

// Where other instances live, too, one that is started again shares what it has left with the candidate that has got it.
func TestFailedUpgradeLeavesWhoWaitsToTheRestartBesideOthers(t *testing.T) {
	eachQueue(t, func(t *testing.T, q queueOf) {
		crashes, lives := q.serve(first), q.serve(InstanceKey{1, 1})
		q.waiting(t, 20)
		q.crash(t, first, crashes)
		candidate := q.serve(second)
		again := q.serve(first)
		q.crash(t, second, candidate)
		apptest.Must(t, q.s.Retire(second))
		checkAnswered(t, 20, again, lives)
	})
}

// Whoever connects is answered, in whatever order instances crash and start while candidates come, fail and take over.
func TestWhoeverWaitsIsAnswered(t *testing.T) {
	chance := randomly(t)
	eachQueue(t, func(t *testing.T, q queueOf) {
		r := &rollout{T: t, Rand: chance, q: q, instances: 1 + chance.IntN(3), selected: 1, started: map[InstanceKey]*instance{}}
		for range 8 {
			r.deeds, r.clients = nil, nil
			for slot := range r.instances {
				r.start(InstanceKey{r.selected, slot})
				r.listen(InstanceKey{r.selected, slot})
			}
			for n := range 30 {
				r.act()
				r.did("client %d", n)
				r.clients = append(r.clients, r.q.dial())
			}
			r.settle()
		}
	})
}
