// Plot draws charts as SVG files: go -C scripts/bench/plot run . FOLDER <charts.json. It is a module of its own, so that the
// library that draws is not needed by anything else.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"image/color"
	"math"
	"os"
	"path/filepath"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	_ "gonum.org/v1/plot/vg/vgsvg" // the format svg
)

// chart has a bar for each name, from the top, or lines.
type chart struct {
	File, Title, Unit string
	From              float64 // where the axis begins: 0, or 1 for ratios on a logarithmic axis
	Bars              []bar
	Across            string // what lines are drawn over
	Lines             []series
}

// bar ends at the median; a line goes from the least value to the most.
type bar struct {
	Name             string
	Value, Low, High float64
	Ours             bool
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "plot:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 1 {
		return errors.New("usage: plot FOLDER <charts.json")
	}
	var charts []chart
	if err := json.NewDecoder(os.Stdin).Decode(&charts); err != nil {
		return err
	}
	for _, c := range charts {
		if err := c.save(args[0]); err != nil {
			return fmt.Errorf("%s: %w", c.File, err)
		}
	}
	return nil
}

const (
	width   = 20 * vg.Centimeter
	margin  = 3 * vg.Centimeter
	perBar  = 0.55 * vg.Centimeter
	barSize = 0.3 * vg.Centimeter
)

var (
	ours   = color.RGBA{R: 0x1a, G: 0x7f, B: 0x37, A: 0xff}
	others = color.RGBA{R: 0x8c, G: 0x95, B: 0x9f, A: 0xff}
	line   = color.RGBA{R: 0x24, G: 0x29, B: 0x2f, A: 0xff}
)

func (c chart) save(folder string) error {
	plot.DefaultFont = font.Font{Typeface: "Liberation", Variant: "Sans"}
	if len(c.Lines) > 0 {
		return c.saveLines(folder)
	}
	p := plot.New()
	p.Title.Text = "\n" + c.Title
	p.BackgroundColor = color.White // so that it can be read on a dark page
	p.X.Label.Text = c.Unit
	p.X.Scale, p.X.Tick.Marker = scale{}, ticks{c.From}
	p.Y.Tick.Length = 0
	names := make([]string, len(c.Bars))
	for n, b := range c.Bars {
		row := len(c.Bars) - 1 - n
		names[row] = "  " + b.Name + "  "
		p.Add(drawn{b, float64(row), c.From})
	}
	p.NominalY(names...)
	p.X.Min = c.From
	p.X.Max = math.Max(p.X.Max, c.From+1)
	return write(p, margin+perBar*vg.Length(len(c.Bars)), filepath.Join(folder, c.File))
}

// write names further fonts whose letters are as wide as those by which the library has placed the text.
func write(p *plot.Plot, height vg.Length, path string) error {
	picture, err := p.WriterTo(width, height, "svg")
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if _, err := picture.WriteTo(&b); err != nil {
		return err
	}
	text := strings.ReplaceAll(b.String(), "font-family:Liberation Sans", "font-family:Liberation Sans,Arial,Helvetica,sans-serif")
	return os.WriteFile(path, []byte(text), 0o644)
}

// scale is logarithmic, and has a place for zero.
type scale struct{}

func (scale) Normalize(low, high, x float64) float64 {
	return (math.Log1p(x) - math.Log1p(low)) / (math.Log1p(high) - math.Log1p(low))
}

type ticks struct{ from float64 }

// Ticks are at powers of ten, and between them at twice and five times these.
func (t ticks) Ticks(_, high float64) []plot.Tick {
	marks := []plot.Tick{{Value: t.from, Label: short(t.from)}}
	for decade := 1.0; decade <= high; decade *= 10 {
		for _, times := range []float64{1, 2, 5} {
			if v := decade * times; v > t.from && v <= high {
				marks = append(marks, plot.Tick{Value: v, Label: short(v)})
			}
		}
	}
	return marks
}

func short(v float64) string { return strings.TrimSuffix(fmt.Sprintf("%.1f", v), ".0") }

// drawn is a bar at its place.
type drawn struct {
	bar
	row, from float64
}

func (d drawn) DataRange() (xmin, xmax, ymin, ymax float64) {
	return d.from, math.Max(d.High, d.Value), d.row - 0.5, d.row + 0.5
}

func (d drawn) Plot(c draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	middle, begin := y(d.row), x(d.from)
	fill := others
	if d.Ours {
		fill = ours
	}
	end := max(x(math.Max(d.Value, d.from)), begin+vg.Points(1)) // so that zero is seen
	c.FillPolygon(fill, []vg.Point{
		{X: begin, Y: middle - barSize/2}, {X: end, Y: middle - barSize/2}, {X: end, Y: middle + barSize/2}, {X: begin, Y: middle + barSize/2},
	})
	style := plotter.DefaultLineStyle
	style.Color = line
	c.StrokeLine2(style, x(math.Max(d.Low, d.from)), middle, x(math.Max(d.High, d.from)), middle)
}
