package chaos

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/gracerun/grace/cmd/load"
)

// book is what has happened in a run.
type book struct {
	mu       sync.Mutex
	file     *os.File
	begun    time.Time
	faults   map[string]int
	findings []string
	requests uint64
	killed   uint64 // requests that failed with an instance which had to
	growth   []string
	lives    int
	told     time.Time
}

// enough findings are kept; a defect can make thousands.
const enough = 50

func open(path string, seed uint64) (*book, error) {
	file, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	_, err = fmt.Fprintf(file, "seed %d\n", seed)
	return &book{file: file, begun: time.Now(), faults: map[string]int{}, told: time.Now()}, err
}

const clock = "15:04:05.000"

func (b *book) note(grace, format string, arguments ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.write(grace, fmt.Sprintf(format, arguments...))
}

func (b *book) write(grace, text string) {
	if _, err := fmt.Fprintf(b.file, "%s %s: %s\n", time.Now().Format(clock), grace, text); err != nil {
		b.findings = append(b.findings, "cannot write the log: "+err.Error())
	}
}

func (b *book) fault(grace, name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.faults[name]++
	b.write(grace, "fault: "+name)
	b.progress()
}

// progress tells who runs it for long that it goes on.
func (b *book) progress() {
	if *length > 5*time.Minute && time.Since(b.told) > time.Minute {
		b.told = time.Now()
		fmt.Fprintf(os.Stderr, "after %s: %d faults, %d findings\n", time.Since(b.begun).Round(time.Second), b.sum(), len(b.findings))
	}
}

func (b *book) sum() (sum int) {
	for _, n := range b.faults {
		sum += n
	}
	return sum
}

func (b *book) find(grace, format string, arguments ...any) {
	text := fmt.Sprintf(format, arguments...)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.write(grace, "FINDING: "+text)
	if len(b.findings) < enough {
		b.findings = append(b.findings, fmt.Sprintf("%s %s: %s", time.Now().Format(clock), grace, text))
	}
}

func (b *book) loaded(tally load.Tally, excused uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.requests += tally.Requests()
	b.killed += excused
	b.lives++
}

func (b *book) grew(text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.growth = append(b.growth, text)
}

func (b *book) summary() (lines []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	lines = append(lines, fmt.Sprintf("%d faults in %s, %d lives of grace", b.sum(), time.Since(b.begun).Round(time.Second), b.lives))
	for _, name := range slices.Sorted(maps.Keys(b.faults)) {
		lines = append(lines, fmt.Sprintf("  %6d %s", b.faults[name], name))
	}
	lines = append(lines, fmt.Sprintf("%d requests, %d failed with the instance that was killed, %d findings", b.requests, b.killed, len(b.findings)))
	return append(lines, b.growth...)
}

func (b *book) close() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.file.Close(); err != nil {
		b.findings = append(b.findings, "cannot write the log: "+err.Error())
	}
	return b.findings
}
