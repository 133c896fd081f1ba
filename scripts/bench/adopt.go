package main

import (
	"fmt"
	"strconv"
	"syscall"
	"time"

	"github.com/gracerun/grace/internal/gracelog"
)

const adoptions = 30

// adopt kills grace, starts it again, and measures until it says that it has adopted the app.
func (b bench) adopt() {
	t := newTable("From the start of grace until it has adopted the app of one that was killed, in ms: median (min..max)", "app\tinstances\ttime\t")
	defer t.end()
	for _, instances := range []int{1, 4} {
		name := fmt.Sprintf("bench-%d-%d", syscall.Getpid(), instances)
		flags := []string{"--name", name, "--instances", strconv.Itoa(instances)}
		t.line("held\t%d\t%v", instances, b.adoptions(append(flags, "--listen", "web="+freeAddress())))
		t.line("captured\t%d\t%v", instances, b.adoptions(flags, "-addr", freeAddress()))
	}
}

func (b bench) adoptions(flags []string, app ...string) (taken series) {
	s := b.begin(flags, app...)
	defer func() { s.stop() }()
	s.awaitReady()
	s.await("serving", 0)
	for range adoptions {
		check(s.Cmd.Process.Kill())
		<-s.Exited
		begun := time.Now()
		s = b.begin(flags, app...)
		adopted := s.awaitEntry("app adopted", func(gracelog.Entry) bool { return true }) // which may have been killed before the generation counted as current
		taken.addTime(adopted.Read.Sub(begun))
	}
	return taken
}
