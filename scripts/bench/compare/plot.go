package compare

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// chart is what scripts/bench/plot draws, and describes.
type chart struct {
	File, Title, Unit string
	From              float64
	Bars              []bar
}

type bar struct {
	Name             string
	Value, Low, High float64
	Ours             bool
}

// plots are of the measures, one file each.
func plots(results []result) []chart {
	var all []chart
	for _, m := range measures() {
		c := chart{File: m.file, Title: sentence(m.name), Unit: m.unit, From: m.from}
		for _, r := range rows(results, m.scenario) {
			if s := m.of(r); len(s) > 0 {
				c.Bars = append(c.Bars, bar{r.name(), s.median(), s.least(), s.most(), r.isGrace()})
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
	folder, err := filepath.Abs(strings.TrimSuffix(page, filepath.Ext(page)))
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return "", err
	}
	charts := plots(results)
	if err := drawInto(folder, charts); err != nil {
		return "", err
	}
	var b strings.Builder
	for _, c := range charts {
		fmt.Fprintf(&b, "![%s](%s/%s)\n\n", c.Title, filepath.Base(folder), c.File)
	}
	return b.String(), nil
}

// drawInto runs the program of the module that has the library.
func drawInto(folder string, charts []chart) error {
	text, err := json.Marshal(charts)
	if err != nil {
		return err
	}
	root, err := moduleFolder()
	if err != nil {
		return err
	}
	c := exec.Command("go", "-C", filepath.Join(root, "scripts", "bench", "plot"), "run", ".", folder)
	c.Stdin = bytes.NewReader(text)
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot draw: %w\n%s", err, out)
	}
	return nil
}

// moduleFolder is that of grace's sources.
func moduleFolder() (string, error) {
	folder, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	return strings.TrimSpace(string(folder)), err
}
