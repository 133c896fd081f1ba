package metrics

import (
	"slices"
	"strings"
	"sync/atomic"
	"time"

	dto "github.com/prometheus/client_model/go"
)

// description is what the values of one name have in common.
type description struct {
	name, help string
	labels     []string // in the order of the alphabet
}

func describe(name, help string, labels ...string) description {
	return description{name, help, labels}
}

func (d description) family(kind dto.MetricType, values []*dto.Metric) *dto.MetricFamily {
	slices.SortFunc(values, func(a, b *dto.Metric) int { return strings.Compare(labelText(a), labelText(b)) })
	return &dto.MetricFamily{Name: &d.name, Help: &d.help, Type: &kind, Metric: values}
}

func labelText(m *dto.Metric) string {
	var text strings.Builder
	for _, l := range m.Label {
		text.WriteString(l.GetValue() + "\x00")
	}
	return text.String()
}

func (d description) label(values []string) []*dto.LabelPair {
	var pairs []*dto.LabelPair
	for n, name := range d.labels {
		pairs = append(pairs, &dto.LabelPair{Name: &name, Value: &values[n]})
	}
	return pairs
}

// gauge is one value, with those of its labels.
func (d description) gauge(value float64, labels ...string) *dto.Metric {
	return &dto.Metric{Label: d.label(labels), Gauge: &dto.Gauge{Value: &value}}
}

// counter counts by result. Each result is there from the beginning, as nothing can be said of the rate of what appears with
// its first occurrence.
type counter struct {
	description
	results []string
	counts  []atomic.Uint64
}

// newCounter has the one result "" if it is given none.
func newCounter(name, help string, results ...string) *counter {
	c := &counter{description: describe(name, help, "result"), results: results}
	if len(results) == 0 {
		c.description, c.results = describe(name, help), []string{""}
	}
	c.counts = make([]atomic.Uint64, len(c.results))
	return c
}

func (c *counter) add(result string, n int) {
	c.counts[slices.Index(c.results, result)].Add(uint64(n))
}

func (c *counter) family() *dto.MetricFamily {
	var values []*dto.Metric
	for n, result := range c.results {
		count := float64(c.counts[n].Load())
		values = append(values, &dto.Metric{Label: c.label([]string{result}), Counter: &dto.Counter{Value: &count}})
	}
	return c.description.family(dto.MetricType_COUNTER, values)
}

// histogram counts durations by upper bounds in seconds. What is above the last has a place of its own.
type histogram struct {
	description
	bounds []float64
	counts []atomic.Uint64
	sum    atomic.Int64 // of nanoseconds
}

func newHistogram(name, help string, bounds ...float64) *histogram {
	return &histogram{description: describe(name, help), bounds: bounds, counts: make([]atomic.Uint64, len(bounds)+1)}
}

func (h *histogram) observe(took time.Duration) {
	place, _ := slices.BinarySearch(h.bounds, took.Seconds()) // a bound is part of its bucket
	h.counts[place].Add(1)
	h.sum.Add(int64(took))
}

func (h *histogram) family() *dto.MetricFamily {
	sum, count := time.Duration(h.sum.Load()).Seconds(), uint64(0)
	var buckets []*dto.Bucket
	for n, bound := range h.bounds {
		count += h.counts[n].Load()
		buckets = append(buckets, &dto.Bucket{UpperBound: &bound, CumulativeCount: new(count)})
	}
	count += h.counts[len(h.bounds)].Load()
	value := &dto.Metric{Histogram: &dto.Histogram{SampleCount: &count, SampleSum: &sum, Bucket: buckets}}
	return h.description.family(dto.MetricType_HISTOGRAM, []*dto.Metric{value})
}
