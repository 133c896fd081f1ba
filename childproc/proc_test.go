package childproc

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
	"testing"
)

// statRest is what follows the first three fields, from the session on: 11 and 12 ticks, 4 threads, 21 pages, signal 19.
const statRest = " 3 4 5 6 7 8 9 10 11 12 -13 14 15 16 4 0 99 20 21 18446744073709551615" +
	" 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 19"

func TestParseStat(t *testing.T) {
	for _, c := range []struct {
		text string
		want procStat
		ok   bool
	}{
		{"7 (sh) S 5 6" + statRest, procStat{'S', 5, 6, 4, 23, 99, 21, 19}, true},
		{"7 (a) Z 9 (b c)) R 5 6" + statRest, procStat{'R', 5, 6, 4, 23, 99, 21, 19}, true},
		{"7 (\n) S 5 6" + statRest, procStat{'S', 5, 6, 4, 23, 99, 21, 19}, true},
		{"7 (sh) S 5 6", procStat{}, false},
		{"7 (sh) S x 6" + statRest, procStat{}, false},
		{"", procStat{}, false},
	} {
		got, err := parseStat([]byte(c.text))
		if got != c.want || (err == nil) != c.ok {
			t.Errorf("%q: %+v, %v", c.text, got, err)
		}
	}
}

func TestReadStatOfItself(t *testing.T) {
	stat, err := readStat(os.Getpid())
	if err != nil || stat.parent != os.Getppid() || stat.threads < 2 || !stat.living() {
		t.Errorf("%+v, %v", stat, err)
	}
}

func TestReadStatOfNobody(t *testing.T) {
	if _, err := readStat(1 << 30); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func TestStopped(t *testing.T) {
	p, err := newReaper(t).Start(shell("kill -TTIN $$"))
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the process is stopped", func() bool { pid, _ := Stopped([]int{1 << 30, p.PID}); return pid == p.PID })
	if _, by := Stopped([]int{p.PID}); by != syscall.SIGTTIN && by != 0 {
		t.Errorf("it was stopped by %s", by)
	}
	if !Living(p.PID) {
		t.Error("it is stopped, and not living")
	}
	if name := Called(p.PID); name != "sh" {
		t.Errorf("it is called %q", name)
	}
	if err := p.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Wait(); err != nil || Living(p.PID) {
		t.Errorf("it has ended, and is living, or %v", err)
	}
	finish(t, p)
	if pid, _ := Stopped([]int{p.PID}); pid != 0 || Called(p.PID) != "?" {
		t.Error("it is gone, and still stopped")
	}
}
