package main

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/gracerun/grace/childproc"
)

const shimRounds = 200

// shim compares the start of a program as grace starts it with its bare start.
func (b bench) shim() {
	path := must(exec.LookPath("true"))
	reaper := must(childproc.NewReaper())
	defer becomeSubreaper(false)
	var bare, through series
	for range shimRounds {
		bare.addTime(runBare(path))
		through.addTime(runThrough(reaper, path))
	}
	t := newTable("Running `true` to its end, in ms: median (min..max)", "how\ttime\t\tadded")
	defer t.end()
	t.line("fork and exec\t%v\t", bare)
	t.line("as grace starts it\t%v\t%v", through, through.minus(bare))
}

func runBare(path string) time.Duration {
	begun := time.Now()
	pid := must(syscall.ForkExec(path, []string{path}, &syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, 1, 2}}))
	check(reap(pid))
	return time.Since(begun)
}

func runThrough(reaper *childproc.Reaper, path string) time.Duration {
	spec := childproc.Spec{Path: path, Args: []string{path}, Env: os.Environ(), Stdin: 0, Stdout: 1, Stderr: 2, Umask: -1}
	begun := time.Now()
	p := must(reaper.Start(spec))
	exit := must(p.Wait())
	took := time.Since(begun)
	if exit.Status() != 0 {
		check(fmt.Errorf("%s: %s", path, exit))
	}
	check(p.Reap())
	return took
}
