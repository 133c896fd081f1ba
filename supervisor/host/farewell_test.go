package host

import (
	"os"
	"testing"
	"time"

	"github.com/gracerun/grace/childproc"
	"github.com/gracerun/grace/handoff/farewell"
	"github.com/gracerun/grace/internal/requirement"
)

// A look at the connections of a generation that leaves may wait for the Reaper, which is suspended when the state is described.
func TestStateIsDescribedDuringALook(t *testing.T) {
	a := &Host{Farewells: NewFarewells(), Launches: map[int]*Preparation{}, Running: map[int]*InstanceProcess{}}
	announcer, err := a.Farewells.Load()
	requirement.Check(t, "bpf", err)
	defer announcer.Close()
	reaper, err := childproc.NewReaper()
	if err != nil {
		t.Fatal(err)
	}
	looks := make(chan struct{}, 100)
	pids := func() ([]int, error) {
		looks <- struct{}{}
		return reaper.Tree(os.Getpid())
	}
	leaving, err := announcer.Announce(farewell.Generation{Pids: pids})
	if err != nil {
		t.Fatal(err)
	}
	defer leaving.Release()
	a.Farewells.started.Store(1, leaving)
	for len(looks) > 0 { // of the announcement
		<-looks
	}
	reaper.Suspend()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		leaving.Look() // it only has to wait
	}()
	<-looks
	described := make(chan error, 1)
	go func() { described <- a.Describe(&HostState{}) }()
	select {
	case err := <-described:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the state waits for the look")
	}
	reaper.Resume()
	<-ended
}
