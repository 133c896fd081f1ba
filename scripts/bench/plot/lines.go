package main

import (
	"fmt"
	"math"
	"path/filepath"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
)

// series is one line of a chart, over a logarithmic axis.
type series struct {
	Name   string
	Points []point
}

// point is a median at X, with the least value and the most.
type point struct{ X, Value, Low, High float64 }

const height = 8 * vg.Centimeter

// errorBars tells plotter the values and how far they spread.
type errorBars []point

func (e errorBars) Len() int                { return len(e) }
func (e errorBars) XY(i int) (x, y float64) { return e[i].X, e[i].Value }
func (e errorBars) YError(i int) (low, high float64) {
	return e[i].Value - e[i].Low, e[i].High - e[i].Value
}

func (c chart) saveLines(folder string) error {
	p := plot.New()
	p.Title.Text = c.Title
	p.X.Label.Text, p.Y.Label.Text = c.Across, c.Unit
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, sizesOf(c.Lines)
	p.Legend.Top, p.Legend.Left = true, true
	p.Add(plotter.NewGrid())
	for n, s := range c.Lines {
		if err := s.add(p, n); err != nil {
			return fmt.Errorf("cannot draw %s: %w", s.Name, err)
		}
	}
	p.Y.Min, p.Y.Max = 0, p.Y.Max*1.15
	return p.Save(width, height, filepath.Join(folder, c.File))
}

func (s series) add(p *plot.Plot, n int) error {
	line, dots, err := plotter.NewLinePoints(errorBars(s.Points))
	if err != nil {
		return err
	}
	spread, err := plotter.NewYErrorBars(errorBars(s.Points))
	if err != nil {
		return err
	}
	line.Color, dots.Color, spread.Color = plotutil.Color(n), plotutil.Color(n), plotutil.Color(n)
	dots.Shape = plotutil.Shape(n)
	p.Add(line, dots, spread)
	if s.Name != "" {
		p.Legend.Add(s.Name, line, dots)
	}
	return nil
}

// sizesOf marks what was measured.
type marks []plot.Tick

func (m marks) Ticks(float64, float64) []plot.Tick { return m }

func sizesOf(lines []series) (all marks) {
	for _, p := range lines[0].Points {
		all = append(all, plot.Tick{Value: p.X, Label: fmt.Sprint(math.Round(p.X))})
	}
	return all
}
