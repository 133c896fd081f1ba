// Package binomial tells tests how much chance may do.
package binomial

import "math"

// Bounds are how many of n come by chance where each comes with probability p: fewer than low are as seldom as that, and so are
// more than high.
func Bounds(n int, p, seldom float64) (low, high int) {
	if p == 0 || p == 1 {
		return int(p) * n, int(p) * n
	}
	chance := func(k int) float64 {
		all, _ := math.Lgamma(float64(n + 1))
		some, _ := math.Lgamma(float64(k + 1))
		rest, _ := math.Lgamma(float64(n - k + 1))
		return math.Exp(all - some - rest + float64(k)*math.Log(p) + float64(n-k)*math.Log(1-p))
	}
	for sum := chance(0); sum < seldom; sum += chance(low) {
		low++
	}
	high = n
	for sum := chance(n); sum < seldom; sum += chance(high) {
		high--
	}
	return low, high
}
