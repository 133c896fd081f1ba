package machine

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// ParseCanary reads steps such as 5%:1m,25%:5m. A step without a time lasts until somebody asks for the next one.
func ParseCanary(written string) ([]CanaryStep, error) {
	var steps []CanaryStep
	for part := range strings.SplitSeq(written, ",") {
		step, err := parseStep(part)
		if err == nil && len(steps) > 0 && step.Share <= steps[len(steps)-1].Share {
			err = errors.New("the shares have to grow")
		}
		if err != nil {
			return nil, fmt.Errorf("--canary %q: %w (write SHARE%%[:TIME],..., as in 5%%:1m,25%%:5m)", written, err)
		}
		steps = append(steps, step)
	}
	return steps, nil
}

func parseStep(written string) (CanaryStep, error) {
	share, lasts, timed := strings.Cut(written, ":")
	number, percent := strings.CutSuffix(share, "%")
	part, err := strconv.ParseFloat(number, 64)
	if err != nil || !percent || !(part > 0 && part < 100) {
		return CanaryStep{}, fmt.Errorf("%q is no share between 0.01%% and 99.99%%", share)
	}
	s := CanaryStep{Share: min(max(Share(part*100+0.5), 1), Whole-1)}
	switch {
	case !timed:
		return s, nil
	}
	if s.For, err = time.ParseDuration(lasts); err != nil || s.For <= 0 {
		return s, fmt.Errorf("%q is no time", lasts)
	}
	return s, nil
}

// ParseSurge reads a number of instances, or a percentage of them.
func ParseSurge(written string) (Surge, error) {
	number, percent := strings.CutSuffix(written, "%")
	n, err := strconv.Atoi(number)
	switch {
	case err != nil || n < 0 || percent && n > 100:
		return Surge{}, fmt.Errorf("--max-surge %q: write a number of instances, or a percentage from 0%% to 100%%", written)
	case percent && n == 100:
		return Surge{}, nil
	case percent:
		return Surge{Limited: true, Percent: n}, nil
	}
	return Surge{Limited: true, Count: n}, nil
}
