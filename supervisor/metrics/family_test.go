package metrics

import (
	"context"
	"io"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gracerun/grace/supervisor/control"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
)

func TestDurationAtABoundIsBelowIt(t *testing.T) {
	h := newHistogram("h", "", 1, 2.5)
	for _, took := range []time.Duration{0, time.Second, time.Second + 1, 2500 * time.Millisecond, time.Hour} {
		h.observe(took)
	}
	got := h.family().Metric[0].Histogram
	for n, want := range []uint64{2, 4} {
		if count := got.Bucket[n].GetCumulativeCount(); count != want {
			t.Errorf("up to %v s: %d, not %d", got.Bucket[n].GetUpperBound(), count, want)
		}
	}
	if got.GetSampleCount() != 5 || math.Abs(got.GetSampleSum()-3604.5) > 1e-6 {
		t.Errorf("%d, in all %v s", got.GetSampleCount(), got.GetSampleSum())
	}
}

func TestEachResultIsCounted(t *testing.T) {
	c := NewCounters()
	for _, o := range outcomes {
		c.Upgrade(control.Outcome(o), time.Second)
	}
	for counter, results := range map[*counter][]string{c.farewells: farewellResults, c.replacements: replacementResults, c.scalings: scalingResults} {
		for _, result := range results {
			counter.add(result, 1)
		}
	}
	for _, f := range []*dto.MetricFamily{c.upgrades.family(), c.farewells.family(), c.replacements.family(), c.scalings.family()} {
		for _, m := range f.Metric {
			if m.Counter.GetValue() != 1 {
				t.Errorf("%s of %s: %v", m.Label, f.GetName(), m.Counter.GetValue())
			}
		}
	}
}

// What clients may ask for, and can read then.
func TestFormats(t *testing.T) {
	s := serve(t, NewCounters(), &source{status: busy()})
	defer s.close()
	for accept, want := range map[string]expfmt.Format{
		"":          expfmt.FmtText,
		"*/*":       expfmt.FmtText,
		"text/html": expfmt.FmtText,
		"application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5":                  expfmt.FmtOpenMetrics_1_0_0,
		"application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited": expfmt.FmtProtoDelim,
	} {
		response, page := s.ask("/metrics", accept)
		kind := response.Header.Get("Content-Type")
		if !strings.HasPrefix(kind, string(want)) {
			t.Errorf("%q: %s", accept, kind)
		}
		if want == expfmt.FmtOpenMetrics_1_0_0 {
			if !strings.Contains(page, "\ngrace_crashes_total 0.0\n") || !strings.HasSuffix(page, "# EOF\n") {
				t.Errorf("%q:\n%s", accept, page)
			}
			continue
		}
		if got := names(t, page, want); !slices.Contains(got, "grace_crashes_total") || !slices.IsSorted(got) || len(got) != 18 {
			t.Errorf("%q: %v", accept, got)
		}
	}
}

// names are those of the families, in the order of the page.
func names(t *testing.T, page string, format expfmt.Format) (all []string) {
	t.Helper()
	if format.FormatType() == expfmt.TypeTextPlain { // its decoder has no order
		for _, m := range exposed(page) {
			all = append(all, m.name)
		}
		return all
	}
	for d := expfmt.NewDecoder(strings.NewReader(page), format); ; {
		var f dto.MetricFamily
		err := d.Decode(&f)
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, f.GetName())
	}
}

// An app beside must not be hindered by who asks too much.
func TestScrapesAreBounded(t *testing.T) {
	slow := &slowSource{asked: make(chan struct{}), answer: make(chan struct{})}
	s := serve(t, NewCounters(), slow)
	defer s.close()
	statuses := make(chan int, maxScrapes)
	for range maxScrapes {
		go func() {
			status, _ := s.get("/metrics")
			statuses <- status
		}()
		<-slow.asked
	}
	if status, why := s.get("/metrics"); status != http.StatusServiceUnavailable || !strings.Contains(why, "ask again later") {
		t.Errorf("one more: %d %s", status, why)
	}
	close(slow.answer)
	for range maxScrapes {
		if status := <-statuses; status != http.StatusOK {
			t.Errorf("status %d", status)
		}
	}
}

type slowSource struct {
	source
	asked, answer chan struct{}
}

func (s *slowSource) Status(context.Context) (control.Status, error) {
	s.asked <- struct{}{}
	<-s.answer
	return s.status, nil
}
