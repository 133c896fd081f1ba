package compare

import (
	"path/filepath"
	"strings"

	"github.com/gracerun/grace/scripts/bench/chart"
)

// plots are of the measures, one file each.
func plots(results []result) []chart.Chart {
	var all []chart.Chart
	for _, m := range measures() {
		c := chart.Chart{File: m.file, Title: sentence(m.name), Unit: m.unit, From: m.from}
		for _, r := range rows(results, m.scenario) {
			if s := m.of(r); len(s) > 0 {
				c.Bars = append(c.Bars, chart.Bar{Name: r.name(), Value: s.median(), Low: s.least(), High: s.most(), Ours: r.isGrace()})
			}
		}
		if len(c.Bars) > 0 {
			all = append(all, c)
		}
	}
	return all
}

// sentence begins with a capital.
func sentence(text string) string { return strings.ToUpper(text[:1]) + text[1:] }

// draw writes the pictures into a folder beside the page that is named after it, and gives the Markdown that shows them.
func draw(results []result, page string) (string, error) {
	folder, charts := strings.TrimSuffix(page, filepath.Ext(page)), plots(results)
	return chart.Markdown(folder, charts), chart.Draw(folder, charts)
}
