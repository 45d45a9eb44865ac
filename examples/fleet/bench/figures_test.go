//go:build linux

package main

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestQuantile(t *testing.T) {
	t.Parallel()
	s := Series{Values: []float64{4, 1, 3, 2}}
	for q, want := range map[float64]float64{0: 1, 0.25: 1, 0.5: 2, 0.75: 3, 0.99: 4, 1: 4} {
		if got := s.quantile(q); got != want {
			t.Errorf("quantile %v: %v, want %v", q, got, want)
		}
	}
	if got := (&Series{}).quantile(0.5); !math.IsNaN(got) {
		t.Errorf("of nothing: %v", got)
	}
}

func TestTheRatioIsThatOfSingleRounds(t *testing.T) {
	t.Parallel()
	var b bout
	for _, v := range []float64{10, 200, 30} { // a slow round slows both
		b.add("over", "ms", v)
		b.add("under", "ms", v/2)
	}
	if got := b.ratio("over", "under"); got != 2 {
		t.Errorf("ratio %v, want 2", got)
	}
}

func TestAClaimHoldsUpToItsBound(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		Claim
		holds  bool
		target string
	}{
		{Claim{Value: 250, Bound: 250, Unit: "ms"}, true, "≤ 250 ms"},
		{Claim{Value: 250.1, Bound: 250, Unit: "ms"}, false, "≤ 250 ms"},
		{Claim{Value: 0.95, Bound: 0.95, Least: true}, true, "≥ 0.95"},
		{Claim{Value: 0.94, Bound: 0.95, Least: true}, false, "≥ 0.95"},
		{Claim{Value: math.NaN(), Bound: 1}, false, "≤ 1"},
		{Claim{Value: math.NaN(), Bound: 1, Least: true}, false, "≥ 1"},
	} {
		if c.Holds() != c.holds || c.Target() != c.target {
			t.Errorf("%+v: holds %v, target %q", c.Claim, c.Holds(), c.Target())
		}
	}
}

func TestThePageSaysWhatWasNotRun(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "RESULTS.md")
	err := writePage([]Result{
		{Row: "a", Work: "A is done", Series: []*Series{{Name: "all", Unit: "ms", Values: []float64{1.5}}}, Claims: []Claim{{Text: "x", Value: 2, Bound: 1}}},
		{Row: "b", Work: "B is done", NotRun: "there is no flanneld"},
		{Row: "c", Work: "C is done", Error: "broken"},
	}, path)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| a | x | 2 | ≤ 1 | **missed** |", "| all | ms | 1.50 |", "This row was not run: there is no flanneld.", "This row failed: broken", "| kernel | Linux ",
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the page lacks %q:\n%s", want, text)
		}
	}
}

func TestRowsAreFoundByName(t *testing.T) {
	t.Parallel()
	if all, err := choose(""); err != nil || len(all) != len(rows) {
		t.Errorf("%d rows, %v", len(all), err)
	}
	if two, err := choose("repair, join"); err != nil || len(two) != 2 || two[0] != &repairRow || two[1] != &joinRow {
		t.Errorf("%v, %v", two, err)
	}
	if _, err := choose("joim"); err == nil {
		t.Error("a row that does not exist is found")
	}
}
