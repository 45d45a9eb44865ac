package main

import (
	"errors"
	"slices"
	"time"
)

// A Result is what a row has shown.
type Result struct {
	Row     string   `json:"row"`
	Work    string   `json:"work"`
	Unit    string   `json:"unit"`
	Series  []Series `json:"series"`
	Claims  []Claim  `json:"claims,omitempty"`
	Briefs  []Brief  `json:"briefs,omitempty"`
	Notes   []string `json:"notes,omitempty"`
	Curves  []Curve  `json:"curves,omitempty"`
	Seconds float64  `json:"seconds"`           // the whole row took
	NotRun  string   `json:"not_run,omitempty"` // why not
	Error   string   `json:"error,omitempty"`
}

// A Series are the figures of one contender, in microseconds a unit.
type Series struct {
	Name   string  `json:"name"`
	Rounds int     `json:"rounds"`
	Median float64 `json:"median_us"`
	Min    float64 `json:"min_us"`
	Max    float64 `json:"max_us"`
}

// A Curve is how a contender's cost grows with something.
type Curve struct {
	Name  string  `json:"name"`
	X     string  `json:"x"` // what grows: "boxes on the bridge"
	Y     string  `json:"y"` // what it costs: "ms an attach"
	Chart string  `json:"chart"`
	Value []Point `json:"points"`
}

// A Point is one point of a Curve.
type Point struct {
	X float64 `json:"x"`
	Y float64 `json:"y"`
}

// result is what a row has shown that ended with err.
func (b *bout) result(r *row, err error) Result {
	res := Result{Row: r.name, Work: r.work, Unit: r.unit, Claims: b.claims, Briefs: b.briefs, Notes: append(b.processors(), b.notes...), Curves: b.curves}
	var reason notRun
	switch {
	case errors.As(err, &reason) && !mustRun():
		res.NotRun = reason.Error()
	case err != nil:
		res.Error = err.Error()
	}
	for _, name := range b.order {
		f := b.figures[name]
		res.Series = append(res.Series, Series{
			Name: name, Rounds: len(f),
			Median: micro(median(f)), Min: micro(slices.Min(f)), Max: micro(slices.Max(f)),
		})
	}
	return res
}

func micro(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 }

// growth adds a curve of a series: the medians of parts of it, one part a point.
func (b *bout) growth(series, chart, x, y string, part int) {
	f, part := b.figures[series], max(part, 1)
	c := Curve{Name: series, Chart: chart, X: x, Y: y}
	for at := 0; at+part <= len(f); at += part {
		c.Value = append(c.Value, Point{X: float64(at + part), Y: micro(median(f[at:at+part])) / 1000})
	}
	if len(c.Value) > 1 {
		b.curves = append(b.curves, c)
	}
}
