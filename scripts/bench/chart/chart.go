// Package chart has the program of scripts/bench/plot draw charts. That is a module of its own, so that the library that draws is not
// needed by anything else.
package chart

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Chart is one picture: bars, or lines.
type Chart struct {
	File, Title, Unit string
	From              float64 `json:",omitempty"` // where the axis of bars begins
	Bars              []Bar   `json:",omitempty"`
	Across            string  `json:",omitempty"` // what the lines are drawn over, on a logarithmic axis
	Lines             []Line  `json:",omitempty"`
}

// Bar ends at the median; a line goes from the least value to the most.
type Bar struct {
	Name             string
	Value, Low, High float64
	Ours             bool
}

// Line goes through the medians of its points.
type Line struct {
	Name   string
	Points []Point
}

// Point is a median at X, with the least value and the most.
type Point struct{ X, Value, Low, High float64 }

// Draw writes the pictures, and makes the folder for them.
func Draw(folder string, charts []Chart) error {
	folder, err := filepath.Abs(folder)
	if err != nil {
		return fmt.Errorf("cannot draw: %w", err)
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return fmt.Errorf("cannot draw: %w", err)
	}
	text, err := json.Marshal(charts)
	if err != nil {
		return fmt.Errorf("cannot draw: %w", err)
	}
	root, err := Sources()
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

// Markdown shows the pictures of a folder beside a page.
func Markdown(folder string, charts []Chart) string {
	var b strings.Builder
	for _, c := range charts {
		fmt.Fprintf(&b, "![%s](%s/%s)\n\n", c.Title, filepath.Base(folder), c.File)
	}
	return b.String()
}

// Sources is the top folder of the module in which the caller runs.
func Sources() (string, error) {
	folder, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return "", fmt.Errorf("cannot find the sources: %w", err)
	}
	return strings.TrimSpace(string(folder)), nil
}
