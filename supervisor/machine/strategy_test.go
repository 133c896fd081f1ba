package machine

import (
	"strings"
	"testing"
)

func TestParseCanary(t *testing.T) {
	for written, want := range map[string]string{
		"5%":               "5 %",
		"5%:1m,25%:5m":     "5 % 1m0s, 25 % 5m0s",
		"0.01%,99.99%:1ms": "0.01 %, 99.99 % 1ms",
		"0.001%":           "0.01 %", // not nothing
		"99.999%":          "99.99 %",
		"12.345%":          "12.35 %",
	} {
		steps, err := ParseCanary(written)
		if got := canaryText(steps); err != nil || got != want {
			t.Errorf("%q is %q, %v", written, got, err)
		}
	}
	for written, why := range map[string]string{
		"": "no share", "5": "no share", "%": "no share", "0%": "no share", "100%": "no share", "-1%": "no share", "NaN%": "no share", "Inf%": "no share", "5%,": "no share",
		"5%:": "no time", "5%:x": "no time", "5%:0s": "no time", "5%:-1s": "no time",
		"5%,5%": "have to grow", "25%:1m,5%:1m": "have to grow",
	} {
		if steps, err := ParseCanary(written); err == nil || !strings.Contains(err.Error(), why) || !strings.HasPrefix(err.Error(), "--canary ") {
			t.Errorf("%q is %v, %v", written, steps, err)
		}
	}
}

func canaryText(steps []CanaryStep) string {
	var parts []string
	for _, s := range steps {
		part := s.Share.String()
		if s.For > 0 {
			part += " " + s.For.String()
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, ", ")
}

func FuzzParseCanary(f *testing.F) {
	for _, seed := range []string{"5%:1m,25%:5m", "5%", "", "1e1%", "0x1p-2%:1ns", "5%:1m:2", "99.999%,99.9999%"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, written string) {
		steps, err := ParseCanary(written)
		if (err == nil) != (len(steps) > 0) {
			t.Fatalf("%q: %v, %v", written, steps, err)
		}
		last := Share(0)
		for _, s := range steps {
			if s.Share <= last || s.Share >= Whole || s.For < 0 {
				t.Fatalf("%q: %v", written, steps)
			}
			last = s.Share
		}
	})
}

func TestParseSurge(t *testing.T) {
	for written, want := range map[string]map[int]int{ // by the number of instances
		"100%": {1: 1, 8: 8},
		"25%":  {1: 1, 4: 1, 5: 2, 8: 2},
		"1%":   {1: 1, 8: 1, 1000: 10},
		"0%":   {1: 0, 8: 0},
		"0":    {1: 0, 8: 0},
		"1":    {1: 1, 8: 1},
		"10":   {1: 1, 8: 8, 20: 10},
	} {
		s, err := ParseSurge(written)
		if err != nil {
			t.Errorf("%q: %v", written, err)
		}
		for instances, most := range want {
			if got := s.of(instances); got != most {
				t.Errorf("%q of %d instances is %d, not %d", written, instances, got, most)
			}
		}
	}
	for _, written := range []string{"", "-1", "101%", "-1%", "x", "1.5", "%", "1 %"} {
		if s, err := ParseSurge(written); err == nil || !strings.HasPrefix(err.Error(), "--max-surge ") {
			t.Errorf("%q is %+v, %v", written, s, err)
		}
	}
}

func FuzzParseSurge(f *testing.F) {
	for _, seed := range []string{"1", "25%", "0", "100%", "99999999999999999999", "+1%"} {
		f.Add(seed, 8)
	}
	f.Fuzz(func(t *testing.T, written string, instances int) {
		s, err := ParseSurge(written)
		instances = 1 + int(uint(instances)%MostInstances)
		if got := s.of(instances); err == nil && (got < 0 || got > instances) {
			t.Fatalf("%q of %d instances is %d", written, instances, got)
		}
	})
}

func TestShareText(t *testing.T) {
	for share, want := range map[Share]string{1: "0.01 %", 105: "1.05 %", 500: "5 %", Whole: "100 %"} {
		if share.String() != want {
			t.Errorf("%d is %q", share, share)
		}
	}
}
