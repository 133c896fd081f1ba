package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"time"
)

// dimension is what there can be more or less of. Each of its sizes is measured by itself.
type dimension struct {
	name, of string // for a file's name, and for people
	sizes    []int
	measure  func(b bench, size int, m *sizeFigures)
}

// sizeFigures are of the grace process.
type sizeFigures struct {
	ready       series // ms from HUP until the new generation is ready
	cpu         series // ms for the same upgrade, until the old generation has ended
	descriptors series // when the old generation has ended
	memory      series // resident, in MB
}

const sizeRounds = 3

func dimensions() []dimension {
	return []dimension{
		{"listeners", "listeners, held", []int{1, 10, 100, 1000}, bench.measureListeners},
		{"instances", "instances", []int{1, 4, 16, 64}, bench.measureInstances},
		{"connections", "connections", []int{10, 100, 1000, 10_000, 18_000}, bench.measureConnections},
		{"draining", "generations that drain meanwhile", []int{1, 2, 5, 10}, bench.measureDraining},
		{"upgrades", "upgrades before", []int{1, 10, 100, 1000, 10_000}, nil},
	}
}

// sizedResult has the figures of each size of a dimension.
type sizedResult struct {
	dimension
	figures []sizeFigures
}

// sizes measures what an upgrade costs grace by the number of what there is, in turns.
func (b bench) sizes() []sizedResult {
	var all []sizedResult
	for _, d := range dimensions() {
		all = append(all, sizedResult{d, make([]sizeFigures, len(d.sizes))})
	}
	for range sizeRounds {
		for _, r := range all {
			for _, n := range rand.Perm(len(r.sizes)) {
				if r.measure != nil {
					r.measure(b, r.sizes[n], &r.figures[n])
				}
			}
		}
	}
	b.measureUpgrades(&all[len(all)-1])
	return all
}

// upgrade measures one.
func (m *sizeFigures) upgrade(s *supervised) {
	pid := s.Cmd.Process.Pid
	before, begun := cpuOf(pid), s.hangUp()
	m.ready.addTime(s.awaitReady().Read.Sub(begun))
	s.awaitEnd()
	time.Sleep(rested)
	m.cpu.addTime(cpuOf(pid) - before)
	m.look(pid)
}

func (m *sizeFigures) look(pid int) {
	m.descriptors.add(float64(len(must(os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))))))
	m.memory.add(memoryOf(pid).resident)
}

func (b bench) measureListeners(n int, m *sizeFigures) {
	s := b.supervise(append([]string{"--ready", "notify"}, listenersBeside(n-1)...), "-linger", shortLinger)
	defer s.stop()
	m.upgrade(s)
}

func (b bench) measureInstances(n int, m *sizeFigures) {
	s := b.supervise([]string{"--instances", strconv.Itoa(n)}, "-linger", shortLinger)
	defer s.stop()
	m.upgrade(s)
}

func (b bench) measureConnections(n int, m *sizeFigures) {
	linger := every + every/5 // so that each of the busy ones asks once more meanwhile, and leaves
	s := b.supervise([]string{"--instances", strconv.Itoa(instances)}, "-linger", linger.String())
	defer s.stop()
	silent, busy := s.invite(n/2, 0), s.invite(n/2, every)
	defer busy.leave()
	defer silent.leave()
	m.upgrade(s)
}

// measureDraining has so many generations work on a request while the next one comes.
func (b bench) measureDraining(n int, m *sizeFigures) {
	s := b.superviseCaptured([]string{"--settle", "0s", "--max-draining", strconv.Itoa(n + 1), "--drain-timeout", patience.String()}, "-linger", shortLinger)
	defer s.stop()
	pid := s.Cmd.Process.Pid
	for range n {
		go finish(askSlowly(s.address))
		s.hangUp()
		s.awaitReady()
	}
	before, begun := cpuOf(pid), s.hangUp()
	m.ready.addTime(s.awaitReady().Read.Sub(begun))
	time.Sleep(time.Second)
	m.cpu.addTime(cpuOf(pid) - before)
	m.look(pid)
}

// finish waits for the end of a request, which is cut when grace is stopped.
func finish(conn net.Conn) {
	_, _ = io.Copy(io.Discard, conn)
	conn.Close()
}

// measureUpgrades is one grace process with all upgrades.
func (b bench) measureUpgrades(r *sizedResult) {
	s := b.supervise(nil, "-linger", "0s")
	defer s.stop()
	done := 0
	for n, size := range r.sizes {
		for ; done < size-1; done++ {
			s.hangUp()
			s.awaitReady()
			s.awaitEnd()
		}
		r.figures[n].upgrade(s)
		done++
	}
}
