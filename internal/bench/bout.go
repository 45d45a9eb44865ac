package main

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// A bout is one run of a row: every figure of every contender, and what is
// claimed of them.
type bout struct {
	n       int // rounds wanted
	full    bool
	order   []string // series, in the order they came up
	figures map[string][]time.Duration
	usages  map[string]usage // in all rounds
	claims  []Claim
	briefs  []Brief
	notes   []string
	curves  []Curve

	explained []string // series whose processor time is reported
}

func newBout(n int, full bool) *bout {
	return &bout{n: n, full: full, figures: map[string][]time.Duration{}, usages: map[string]usage{}}
}

// size returns a number of things to work on: all of them in a run at full
// size, a few where a row is only tried out.
func (b *bout) size(full, small int) int {
	if b.full {
		return full
	}
	return small
}

// add files one figure of a series: a contender, or "contender, circumstance".
func (b *bout) add(series string, d time.Duration) {
	if _, ok := b.figures[series]; !ok {
		b.order = append(b.order, series)
	}
	b.figures[series] = append(b.figures[series], d)
}

// has says whether a series has figures.
func (b *bout) has(series string) bool { return len(b.figures[series]) > 0 }

// note adds a remark that stands below the row: memory, counts, whose cost it is.
func (b *bout) note(format string, args ...any) {
	if text := fmt.Sprintf(format, args...); !slices.Contains(b.notes, text) {
		b.notes = append(b.notes, text)
	}
}

// A Claim is a ratio beside what is wanted of it.
type Claim struct {
	Text  string  `json:"text"`
	Value float64 `json:"value"`
	Bound float64 `json:"bound"`
	Least bool    `json:"least,omitempty"` // the bound is the least, not the most
	Holds bool    `json:"holds"`
}

// String returns the claim as "0.87 (at most 0.90)".
func (c Claim) String() string {
	word := "at most"
	if c.Least {
		word = "at least"
	}
	return fmt.Sprintf("%.2f (%s %.2f)", c.Value, word, c.Bound)
}

// atMost claims that a series costs at most bound times another: the median of
// the ratios round by round, for the rounds of one turn shared the same machine.
func (b *bout) atMost(series, other string, bound float64) {
	if !b.claim(series+" / "+other, pairRatio(b.figures[series], b.figures[other]), bound, false) {
		b.explain(series, other)
	}
}

// faster claims that a series is at least bound times as fast as another.
func (b *bout) faster(series, other string, bound float64) {
	b.claim(other+" / "+series, pairRatio(b.figures[other], b.figures[series]), bound, true)
}

// grows claims that within a series the last part costs at most bound times
// what the first does, by medians.
func (b *bout) grows(series string, part int, bound float64) {
	first, last, part := b.ends(series, part)
	if part == 0 {
		return
	}
	text := fmt.Sprintf("%s: the last %d / the first %d", series, part, part)
	b.claim(text, float64(last)/float64(first), bound, false)
}

// grew notes how much a series grew that nothing is claimed of.
func (b *bout) grew(series string, part int) {
	first, last, part := b.ends(series, part)
	if part > 0 {
		b.note("%s: the last %d / the first %d is %.2f (%.1f and %.1f µs).", series, part, part, float64(last)/float64(first), micro(last), micro(first))
	}
}

// ends are the medians of the first and of the last part of a series, or of its
// halves where it is short.
func (b *bout) ends(series string, part int) (first, last time.Duration, size int) {
	all := b.figures[series]
	part = min(part, len(all)/2)
	if part == 0 {
		return 0, 0, 0
	}
	return median(all[:part]), median(all[len(all)-part:]), part
}

func (b *bout) claim(text string, value, bound float64, least bool) (holds bool) {
	holds = value <= bound
	if least {
		holds = value >= bound
	}
	b.claims = append(b.claims, Claim{Text: text, Value: value, Bound: bound, Least: least, Holds: holds})
	return holds
}

// pairRatio is the median of a[i]/b[i], or the ratio of the medians where the
// series differ in length.
func pairRatio(a, b []time.Duration) float64 {
	if len(a) == 0 || len(b) == 0 {
		return 0
	}
	if len(a) != len(b) {
		return float64(median(a)) / float64(median(b))
	}
	ratios := make([]float64, len(a))
	for i := range a {
		ratios[i] = float64(a[i]) / float64(b[i])
	}
	return median(ratios)
}

func median[T cmp.Ordered](values []T) T {
	var zero T
	if len(values) == 0 {
		return zero
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}
