package soak

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/gracerun/grace/test/harness"
)

// growth is what must not grow: of grace, when only one generation is left.
type growth struct {
	descriptors int
	memory      int // resident, in KiB
}

func (g growth) String() string {
	return fmt.Sprintf("%d descriptors, %d MiB", g.descriptors, g.memory>>10)
}

// moreDescriptors may be open for a moment.
const moreDescriptors = 8

// measure is at the end of each round, when grace has done everything since it was killed.
func (r *result) measure(t *testing.T, d *harness.KilledGrace) {
	t.Helper()
	if r.upgrades%round != round-1 {
		return
	}
	d.AwaitOneGeneration()
	if r.first == (growth{}) {
		r.first = measured(t, d.PID())
		return
	}
	harness.Until(t, fmt.Sprintf("grace has hardly more than %d descriptors", r.first.descriptors), func() bool {
		r.last = measured(t, d.PID())
		return r.last.descriptors <= r.first.descriptors+moreDescriptors
	})
}

func measured(t *testing.T, pid int) (g growth) {
	t.Helper()
	descriptors, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	g.descriptors = len(descriptors)
	for line := range strings.Lines(string(status)) {
		fmt.Sscanf(line, "VmRSS: %d", &g.memory)
	}
	return g
}
