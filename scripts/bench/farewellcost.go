package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// contender is one of several that are measured in turns.
type contender struct {
	name     string
	bench    bench
	farewell string

	begin   series // ms of a processor
	memory  series // MB
	peak    series
	upgrade series // ms of a processor, until the old generation has ended
	keep    series // the same, until no connection is kept any more
	took    series // s until it has ended
}

// cost is what a farewell takes from the machine in grace itself: at the start, and at an upgrade with many clients.
func (b bench) cost(r farewellRun) {
	all := []*contender{{name: "--farewell 0s", bench: b, farewell: "0s"}, {name: "--farewell 1s", bench: b, farewell: "1s"}}
	if r.against != "" {
		all = append(all, &contender{name: "--farewell 1s, " + r.against, bench: bench{must(filepath.Abs(r.against)), b.app, b.figures}, farewell: "1s"})
	}
	folder := must(os.MkdirTemp("", "grace-bench-"))
	defer os.RemoveAll(folder)
	address := freeAddress()
	command := must(servers[0].install(folder, address))
	for range r.cost {
		for _, c := range all {
			c.measure(command, address, r)
		}
	}
	begin := newTable("Starting grace with a Go server, 3 s: median (min..max)", "\tCPU of grace, ms\t\tadded\t\tresident MB\t\tpeak MB")
	for _, c := range all {
		begin.line("%s\t%v\t%v\t%v\t%v", c.name, c.begin, c.begin.minus(all[0].begin), c.memory, c.peak)
	}
	begin.end()
	upgrade := newTable("An upgrade with 1,000 clients that pause for 0.5 to 1.5 s", "\tCPU of grace, ms\t\tratio\t\twith what is kept\t\tuntil the old generation has ended, s")
	for _, c := range all {
		upgrade.line("%s\t%v\t%v\t%v\t%v", c.name, c.upgrade, c.upgrade.over(all[0].upgrade), c.keep, c.took)
	}
	upgrade.end()
}

// loadTime is more than what the kernel takes to verify the programs.
const loadTime = 3 * time.Second

func (c *contender) measure(command []string, address string, r farewellRun) {
	g := c.bench.underGrace(servers[0], command, c.farewell)
	defer g.stop()
	pid := g.Cmd.Process.Pid
	time.Sleep(loadTime)
	c.begin.addTime(cpuOf(pid))
	c.memory.add(memoryOf(pid).resident)
	c.peak.add(float64(fields(fmt.Sprintf("/proc/%d/status", pid))["VmHWM"]) / 1024)

	clients := farewellRun{moderate: 1000, pace: r.pace}.clients(address)
	before, begun := cpuOf(pid), time.Now()
	g.replace(func(at moment) {
		if at == ended {
			c.upgrade.addTime(cpuOf(pid) - before)
			c.took.add(time.Since(begun).Seconds())
		}
	})
	time.Sleep(keptTime)
	c.keep.addTime(cpuOf(pid) - before)
	clients.stop(newLosses())
}
