package chaos

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gracerun/grace/internal/freeport"
)

var (
	length  = flag.Duration("chaos.for", 40*time.Second, "how long faults are made")
	seed    = flag.Uint64("chaos.seed", 0, "the sequence of faults; 0: another one each time")
	most    = flag.Int("chaos.faults", 0, "end after so many faults of each grace; 0: there is no limit")
	life    = flag.Int("chaos.life", 400, "stop each grace after so many faults and start another one")
	only    = flag.String("chaos.only", "", "the faults to make, separated by commas; empty: all")
	without = flag.String("chaos.without", "", "faults to leave out, separated by commas")
	sockets = flag.String("chaos.sockets", "", "the sockets to have, separated by commas; empty: all")
	race    = flag.Bool("chaos.race", true, "build grace with the race detector")
	logs    = flag.String("chaos.logs", "", "folder for what is kept of a run with findings; empty: a temporary one")
)

// patience is for what has to come; only a defect waits for its end.
const patience = 2 * time.Minute

// run is one run of all grace processes.
type run struct {
	seed     uint64
	dir      string // of the logs, and of what is removed at the end
	programs string
	isolated bool // in namespaces of its own
	migrates bool // the kernel moves connections from one listener to another, for odd seeds
	until    time.Time
	children *children
	book     *book
}

func TestChaos(t *testing.T) {
	isolated, ok := isolate(t)
	if !ok {
		return
	}
	r := begin(t, isolated)
	var all sync.WaitGroup
	for _, kind := range kinds() {
		port := freeport.Address(t)
		all.Go(func() { r.live(kind, port) })
	}
	all.Wait()
	for _, line := range r.book.summary() {
		t.Log(line)
	}
	r.end(t)
}

func begin(t *testing.T, isolated bool) *run {
	t.Helper()
	heedHangups()
	r := &run{seed: *seed, isolated: isolated}
	if r.seed == 0 {
		r.seed = rand.Uint64()
	}
	if isolated && r.seed%2 == 1 {
		// Linux before 5.14 does not have it.
		r.migrates = os.WriteFile(migration, []byte("1"), 0) == nil
	}
	var err error
	if r.dir, err = os.MkdirTemp(*logs, "grace-chaos-"); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(r.dir, 0o711); err != nil { // for what runs as another user
		t.Fatal(err)
	}
	if r.programs, err = build(r.dir); err != nil {
		t.Fatal(err)
	}
	if r.children, err = adopt(); err != nil {
		t.Fatal(err)
	}
	if r.book, err = open(filepath.Join(r.dir, "faults.log"), r.seed); err != nil {
		t.Fatal(err)
	}
	r.until = time.Now().Add(*length)
	t.Logf("again with: scripts/chaos --seed %d", r.seed)
	return r
}

// heedHangups undoes what nohup does: grace would ignore SIGHUP as well, and none is followed then.
func heedHangups() { signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP) }

// build makes the programs; the app needs no race detector.
func build(dir string) (programs string, err error) {
	programs = filepath.Join(dir, "programs")
	grace := []string{"build", "-o", filepath.Join(programs, "grace")}
	if *race {
		grace = append(grace, "-race")
	}
	for _, arguments := range [][]string{append(grace, "../.."), {"build", "-o", filepath.Join(programs, "app"), "../testdata/app"}} {
		if out, err := exec.Command("go", arguments...).CombinedOutput(); err != nil {
			return "", fmt.Errorf("go %s: %w\n%s", strings.Join(arguments, " "), err, out)
		}
	}
	return programs, os.Chmod(programs, 0o755)
}

// end keeps the logs of a run with findings, and removes everything else.
func (r *run) end(t *testing.T) {
	t.Helper()
	if left := r.children.left(); len(left) > 0 {
		r.book.find("", "these processes are left at the end: %s", strings.Join(left, ", "))
	}
	if err := os.RemoveAll(r.programs); err != nil {
		t.Error(err)
	}
	findings := r.book.close()
	for _, f := range findings {
		t.Error(f)
	}
	if len(findings) > 0 {
		t.Errorf("%d findings; the logs are in %s, and seed %d makes the same faults", len(findings), r.dir, r.seed)
		return
	}
	if err := os.RemoveAll(r.dir); err != nil {
		t.Error(err)
	}
}

// live starts one grace process after another and has faults done to it.
func (r *run) live(kind kind, port string) {
	number := 0
	for n := 0; !r.over(number); n++ {
		g := r.newGrace(kind, n, port)
		number = g.live(number)
	}
}

func (r *run) over(faults int) bool {
	return time.Now().After(r.until) || *most > 0 && faults >= *most
}

// live makes faults until it is time for another grace process, and gives the number of the last one.
func (g *grace) live(number int) int {
	defer g.bury()
	g.attempt(func() { g.start() })
	deck := g.deck(number)
	for n := 0; !g.lost && n < *life && !g.run.over(number); n++ {
		if len(deck) == 0 {
			deck = g.deck(number)
		}
		f := deck[0]
		deck = deck[1:]
		g.suffer(f, g.random(number))
		number++
		if (n+1)%measureEach == 0 {
			g.attempt(g.measure)
		}
	}
	g.attempt(g.finish)
	return number
}

// random gives each fault numbers of its own: how many one takes depends on when it comes.
func (g *grace) random(number int) *rand.Rand {
	return rand.New(rand.NewPCG(g.run.seed, uint64(g.kind.index)<<32|uint64(number)))
}

// suffer does one fault to a grace process and has it come to rest.
func (g *grace) suffer(f fault, random *rand.Rand) {
	g.run.book.fault(g.name, f.name)
	g.attempt(func() {
		f.do(g, random)
		g.settle()
	})
}

// lost is what a grace process is that cannot be gone on with.
type lost struct{}

// attempt ends where a grace process is lost.
func (g *grace) attempt(do func()) {
	defer func() {
		if problem := recover(); problem != nil {
			if problem != (lost{}) {
				panic(problem)
			}
			g.lost = true
		}
	}()
	if !g.lost {
		do()
	}
}
