package host

import "testing"

func TestParseMemory(t *testing.T) {
	for written, want := range map[string]int64{"": 0, "1M": 1 << 20, "500M": 500 << 20, "2g": 2 << 30, "1.5G": 3 << 29, "2048K": 2 << 20, "1048576": 1 << 20, "1T": 1 << 40} {
		if got, err := ParseMemory(written); got != want || err != nil {
			t.Errorf("%q: %d, %v", written, got, err)
		}
	}
	for _, written := range []string{"500", "M", "-1G", "1X", "1MB", "nan", "NaNG", "InfG", "1e300T"} {
		if got, err := ParseMemory(written); err == nil {
			t.Errorf("%q: %d", written, got)
		}
	}
}

func TestSize(t *testing.T) {
	for n, want := range map[Size]string{0: "0", 1023: "1023", 1 << 10: "1K", 500 << 20: "500M", 3 << 29: "1.5G", 1 << 50: "1024T"} {
		if got := n.String(); got != want {
			t.Errorf("%d: %s", int64(n), got)
		}
	}
}
