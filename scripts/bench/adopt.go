package main

import (
	"fmt"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"github.com/gracerun/grace/internal/gracelog"
)

const adoptions = 30

// adopt kills grace, starts it again, and measures until it says that it has adopted the app. Beside it, in turns, grace --version shows what
// the start of the program alone takes on this machine.
func (b bench) adopt() {
	t := newTable("From the start of grace until it has adopted the app of one that was killed, in ms: median (min..max)", "app\tinstances\tadopted\t\tgrace --version\t")
	defer t.end()
	for _, instances := range []int{1, 4} {
		name := fmt.Sprintf("bench-%d-%d", syscall.Getpid(), instances)
		flags := []string{"--name", name, "--instances", strconv.Itoa(instances)}
		adopted, bare := b.adoptions(append(flags, "--listen", "web="+freeAddress()))
		t.line("held\t%d\t%v\t%v", instances, adopted, bare)
		adopted, bare = b.adoptions(flags, "-addr", freeAddress())
		t.line("captured\t%d\t%v\t%v", instances, adopted, bare)
	}
}

func (b bench) adoptions(flags []string, app ...string) (taken, bare series) {
	s := b.begin(flags, app...)
	defer func() { s.stop() }()
	s.awaitReady()
	s.await("serving", 0)
	for range adoptions {
		check(s.Cmd.Process.Kill())
		<-s.Exited
		begun := time.Now()
		check(exec.Command(b.grace, "--version").Run())
		bare.addTime(time.Since(begun))
		begun = time.Now()
		s = b.begin(flags, app...)
		adopted := s.awaitEntry("app adopted", func(gracelog.Entry) bool { return true }) // which may have been killed before the generation counted as current
		taken.addTime(adopted.Read.Sub(begun))
	}
	return taken, bare
}
