package steering

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/gracerun/grace/handoff/internal/apptest"
	"github.com/gracerun/grace/handoff/socket"
	"golang.org/x/sys/unix"
)

// read gives what a grace process reads that the Copy was written for.
func read(t *testing.T, s *Steering, show func(inode uint64, fd int)) (state SteeringState) {
	t.Helper()
	copied, err := s.Copy(show)
	apptest.Must(t, err)
	text, err := json.Marshal(copied)
	apptest.Must(t, err)
	apptest.Must(t, json.Unmarshal(text, &state))
	return state
}

// killed leaves of a Steering what a grace process leaves that is killed: its state, and the sockets that apps have. The others end in
// an order that nobody knows.
func killed(t *testing.T, s *Steering, ending []int, apps []*appSocket) (SteeringState, socket.Descriptors) {
	t.Helper()
	state := read(t, s, func(uint64, int) {})
	for _, n := range ending {
		apptest.Must(t, unix.Close(apps[n].fd))
		apps[n].fd = -1
	}
	var own []int
	for _, p := range s.places() {
		for _, member := range p.list().Members {
			own = append(own, member.FD)
			member.FD = -1
		}
	}
	rand.Shuffle(len(own), func(i, j int) { own[i], own[j] = own[j], own[i] })
	for _, fd := range own {
		apptest.Must(t, unix.Close(fd))
	}
	found, fds := map[uint64]int{}, socket.Descriptors{}
	for _, a := range apps {
		if a.fd >= 0 {
			found[a.inode] = a.duplicate()
		}
	}
	state.Keep(found, fds)
	return state, fds
}

// The numbers in a group are found out where sockets have ended that nobody was there to see.
func TestOrderIsFoundAfterAKill(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "0.0.0.0", "::1", "::"} {
		for seed := range uint64(8) {
			t.Run(fmt.Sprint(host, " ", seed), func(t *testing.T) {
				s, at := newSteering(t), reservePort(t, host)
				var apps []*appSocket
				for generation := 1; generation <= 7; generation++ {
					apps = append(apps, serve(t, s, InstanceKey{generation, 0}, at))
				}
				if _, err := s.Steer(Split{Generation: 1 + int(seed)%len(apps)}); err != nil {
					t.Fatal(err)
				}
				ending := rand.New(rand.NewPCG(seed, 0)).Perm(len(apps))[:3]
				state, fds := killed(t, s, ending, apps)
				next, err := TakeOverSteering(state, fds, nil)
				apptest.Must(t, err)
				defer next.Close()
				for n, a := range apps {
					if a.fd < 0 {
						continue
					}
					if kept, err := next.Steer(Split{Generation: n + 1}); err != nil || len(kept) > 0 {
						t.Fatalf("%v, %v", kept, err)
					}
					if got := connected(t, at, 0, living(apps)...); got != a {
						t.Errorf("generation %d is selected, and another one got the connection", n+1)
					}
				}
			})
		}
	}
}

func living(apps []*appSocket) (all []*appSocket) {
	for _, a := range apps {
		if a.fd >= 0 {
			all = append(all, a)
		}
	}
	return all
}

// A socket that has come to listen after the state was copied is steered as the others are.
func TestSocketThatTheStateDoesNotKnowIsAdded(t *testing.T) {
	for _, grouped := range []bool{true, false} {
		t.Run(fmt.Sprint(grouped), func(t *testing.T) {
			s, at := newSteering(t), reservePort(t, "127.0.0.1")
			var apps []*appSocket
			if grouped {
				apps = append(apps, serve(t, s, InstanceKey{1, 0}, at))
			}
			state := read(t, s, func(uint64, int) {})
			late := serve(t, s, InstanceKey{2, 0}, at)
			apptest.Must(t, s.Close())
			found, fds := map[uint64]int{}, socket.Descriptors{}
			for _, a := range apps {
				found[a.inode] = a.duplicate()
			}
			state.Keep(found, fds)
			const there = 1000
			fds[there] = late.duplicate()
			for _, want := range []bool{true, false} { // once
				if added, err := state.Add(InstanceKey{2, 0}, fds[there], there); added != want || err != nil {
					t.Fatalf("added: %v, %v", added, err)
				}
			}
			next, err := TakeOverSteering(state, fds, nil)
			apptest.Must(t, err)
			defer next.Close()
			if _, err := next.Steer(Split{Generation: 2}); err != nil {
				t.Fatal(err)
			}
			if got := connected(t, at, 0, append(apps, late)...); got != late {
				t.Error("generation 2 is selected, and another one got the connection")
			}
			if !grouped {
				return
			}
			if _, err := next.Steer(Split{Generation: 1}); err != nil {
				t.Fatal(err)
			}
			if got := connected(t, at, 0, append(apps, late)...); got != apps[0] {
				t.Error("generation 1 is selected, and another one got the connection")
			}
		})
	}
}
