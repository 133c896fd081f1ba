package host

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Size is a number of bytes, written with the units of systemd: powers of 1024.
type Size int64

const units = "KMGT"

func (s Size) String() string {
	unit, n := "", float64(s)
	for i := 0; i < len(units) && n >= 1024; i++ {
		unit, n = units[i:i+1], n/1024
	}
	return strconv.FormatFloat(math.Round(n*10)/10, 'f', -1, 64) + unit
}

// leastMemory is less than any program needs: who wants less has left out the unit.
const leastMemory = 1 << 20

// ParseMemory reads a size such as 500M; nothing is 0.
func ParseMemory(written string) (int64, error) {
	if written == "" {
		return 0, nil
	}
	number, factor := written, float64(1)
	if i := strings.Index(units, strings.ToUpper(written[len(written)-1:])); i >= 0 {
		number, factor = written[:len(written)-1], math.Pow(1024, float64(i+1))
	}
	n, err := strconv.ParseFloat(number, 64)
	if bytes := n * factor; err == nil && bytes >= leastMemory && bytes < math.MaxInt64 {
		return int64(bytes), nil
	}
	return 0, fmt.Errorf("--max-memory %q: write a size of at least 1M, with K, M, G or T, as in 500M", written)
}
