package main

import "fmt"

// summary collects the figures that have an aim.
type summary []figure

type figure struct {
	name          string
	aim, measured float64
	unit          string
}

func (f figure) met() bool { return f.measured <= f.aim }

func (f figure) verdict() string {
	if f.met() {
		return "met"
	}
	return "missed"
}

func (s *summary) add(name string, aim, measured float64, unit string) {
	*s = append(*s, figure{name, aim, measured, unit})
}

func (s *summary) print() {
	if len(*s) == 0 {
		return
	}
	t := newTable("What was measured beside its aim", "figure\tat most\tmeasured\t\t")
	defer t.end()
	for _, f := range *s {
		t.line("%s\t%.4g\t%.3f\t%s\t%s", f.name, f.aim, f.measured, f.unit, f.verdict())
	}
}

func orNone(aim float64) string {
	if aim == 0 {
		return "-"
	}
	return fmt.Sprint(aim)
}
