package host

import (
	"math"
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

func TestCPUsOfACgroup(t *testing.T) {
	root := t.TempDir()
	for dir, limit := range map[string]string{
		"": "", "free": "max 100000\n", "free/half": "50000 100000\n", "two": "200000 100000\n", "two/eight": "800000 100000\n", "more": "250000 100000\n", "odd": "nonsense",
	} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
		if limit == "" {
			continue
		}
		if err := os.WriteFile(filepath.Join(root, dir, "cpu.max"), []byte(limit), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for membership, want := range map[string]int{
		"0::/\n": math.MaxInt, "0::/free\n": math.MaxInt, "0::/free/half\n": 1, "0::/two\n": 2, "0::/two/eight\n": 2, "0::/more\n": 3, "0::/odd\n": math.MaxInt,
		"0::/gone/below\n": math.MaxInt, "1:cpu:/two\n0::/more\n": 3, "": math.MaxInt,
	} {
		if got := cgroupCPUs(root, membership); got != want {
			t.Errorf("%q: %d, want %d", membership, got, want)
		}
	}
}

func TestCPUs(t *testing.T) {
	if got := CPUs(); got < 1 || got > runtime.NumCPU() {
		t.Errorf("%d of %d", got, runtime.NumCPU())
	}
}
