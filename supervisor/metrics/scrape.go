package metrics

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
)

// formats are those that clients can have. Who takes any gets the first, which people can read.
var formats = []expfmt.Format{expfmt.FmtText, expfmt.FmtOpenMetrics_1_0_0, expfmt.FmtProtoDelim}

// scrape answers with all metrics, in the format that the client prefers.
type scrape struct {
	counters *Counters
	gauges   *gauges
	places   chan struct{} // one for each answer that may be worked on
}

func newScrape(c *Counters, g *gauges) *scrape {
	return &scrape{c, g, make(chan struct{}, maxScrapes)}
}

func (s *scrape) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	select {
	case s.places <- struct{}{}:
		defer func() { <-s.places }()
	default:
		http.Error(w, fmt.Sprintf("%d scrapes are being answered: ask again later", maxScrapes), http.StatusServiceUnavailable)
		return
	}
	format := expfmt.NegotiateAccept(r.Header, formats...)
	text, err := encode(s.families(r.Context()), format)
	if err != nil {
		http.Error(w, fmt.Sprintf("cannot encode the metrics: %v", err), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", string(format))
	_, _ = w.Write(text) // who has left misses nothing
}

func (s *scrape) families(ctx context.Context) []*dto.MetricFamily {
	all := append(s.gauges.families(ctx), s.counters.families()...)
	slices.SortFunc(all, func(a, b *dto.MetricFamily) int { return strings.Compare(a.GetName(), b.GetName()) })
	return all
}

func encode(families []*dto.MetricFamily, format expfmt.Format) ([]byte, error) {
	var text bytes.Buffer
	encoder := expfmt.NewEncoder(&text, format)
	for _, f := range families {
		if err := encoder.Encode(f); err != nil {
			return nil, err
		}
	}
	if end, ok := encoder.(expfmt.Closer); ok {
		if err := end.Close(); err != nil {
			return nil, err
		}
	}
	return text.Bytes(), nil
}
