//go:build linux

package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"
)

// A Series are figures of one kind.
type Series struct {
	Name   string
	Unit   string // "ms", "MiB", ...
	Values []float64
}

// series finds the Series of a name, or begins it.
func (b *bout) series(name, unit string) *Series {
	for _, s := range b.result.Series {
		if s.Name == name {
			return s
		}
	}
	s := &Series{Name: name, Unit: unit}
	b.result.Series = append(b.result.Series, s)
	return s
}

// add adds a figure to a Series.
func (b *bout) add(name, unit string, value float64) {
	s := b.series(name, unit)
	s.Values = append(s.Values, value)
}

// took adds a time.
func (b *bout) took(name string, d time.Duration) {
	b.add(name, "ms", float64(d)/float64(time.Millisecond))
}

// quantile is the value that the share q of the others does not exceed: 0.5 is the median, 1 the largest.
func (s *Series) quantile(q float64) float64 {
	if len(s.Values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(s.Values))
	return sorted[max(0, int(math.Ceil(q*float64(len(sorted))))-1)]
}

// A Claim is a figure beside its target.
type Claim struct {
	Text  string
	Value float64
	Unit  string
	Least bool // the target is the least that is wanted, and else the most
	Bound float64
}

// Holds reports whether the target is met.
func (c Claim) Holds() bool {
	if c.Least {
		return c.Value >= c.Bound
	}
	return c.Value <= c.Bound
}

// Target is the target with its sign.
func (c Claim) Target() string {
	if c.Least {
		return "≥ " + number(c.Bound) + unit(c.Unit)
	}
	return "≤ " + number(c.Bound) + unit(c.Unit)
}

// atMost claims that a quantile of a Series is not above the bound.
func (b *bout) atMost(text, series string, q, bound float64) {
	s := b.series(series, "")
	b.result.Claims = append(b.result.Claims, Claim{Text: text, Value: s.quantile(q), Unit: s.Unit, Bound: bound})
}

// ratio is the median of the ratios of two Series, round by round.
func (b *bout) ratio(over, under string) float64 {
	x, y := b.series(over, "").Values, b.series(under, "").Values
	var r Series
	for i := range min(len(x), len(y)) {
		r.Values = append(r.Values, x[i]/y[i])
	}
	return r.quantile(0.5)
}

// number writes a figure with three digits that count.
func number(v float64) string {
	switch a := math.Abs(v); {
	case v == math.Trunc(v) && a < 1e6:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case a >= 100:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}

func unit(u string) string {
	if u == "" {
		return ""
	}
	return " " + u
}
