package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// A Brief is a line of the README's table.
type Brief struct {
	Work    string  `json:"work"`
	Boxwire float64 `json:"boxwire_us"` // median
	Bare    float64 `json:"bare_us,omitempty"`
	Others  []Other `json:"others,omitempty"`
}

// An Other is what else does the work.
type Other struct {
	Name   string  `json:"name"`
	Median float64 `json:"median_us"`
	Times  float64 `json:"times"` // boxwire's, the median of the rounds' ratios
}

// brief gives the README a line: series of boxwire, of bare system calls ("" for
// none) and of others, with the names that they have there. Others that were not
// run are left out.
func (b *bout) brief(work, boxwire, bare string, others ...[2]string) {
	if !b.has(boxwire) {
		return
	}
	line := Brief{Work: work, Boxwire: micro(median(b.figures[boxwire]))}
	if b.has(bare) {
		line.Bare = micro(median(b.figures[bare]))
	}
	for _, o := range others {
		if name, series := o[0], o[1]; b.has(series) {
			line.Others = append(line.Others, Other{
				Name: name, Median: micro(median(b.figures[series])),
				Times: pairRatio(b.figures[series], b.figures[boxwire]),
			})
		}
	}
	b.briefs = append(b.briefs, line)
}

// What stands between these lines of the README is written by the program.
const (
	markBegin = "<!-- bench: begin -->\n"
	markEnd   = "<!-- bench: end -->\n"
)

// between splits a README at the marks, which stay with the outer parts.
func between(text []byte) (before, inner, after []byte, err error) {
	before, rest, found := bytes.Cut(text, []byte(markBegin))
	inner, after, found2 := bytes.Cut(rest, []byte(markEnd))
	if !found || !found2 {
		return nil, nil, nil, fmt.Errorf("there are no lines %q and %q to write the table between", strings.TrimSpace(markBegin), strings.TrimSpace(markEnd))
	}
	return before, inner, after, nil
}

// checkReadme says beforehand whether writeReadme can do its work.
func checkReadme(path string) error {
	text, err := os.ReadFile(path)
	if err == nil {
		if _, _, _, err = between(text); err != nil {
			err = fmt.Errorf("%s: %w", path, err)
		}
	}
	return err
}

// writeReadme replaces what is between the marks with the table of the last release in the history.
func writeReadme(history, path string) error {
	last, err := lastRelease(history)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, _, after, err := between(text)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	var w bytes.Buffer
	w.Write(before)
	w.WriteString(markBegin)
	w.WriteString(shortTable(last))
	w.WriteString(markEnd)
	w.Write(after)
	return os.WriteFile(path, w.Bytes(), 0o644)
}

func shortTable(r Release) string {
	var w strings.Builder
	fmt.Fprintf(&w, "\n| median, %s | boxwire | bare system calls | others, and how many times boxwire's |\n|---|---:|---:|---|\n", r.Release)
	for _, k := range r.Rows {
		for _, b := range k.Briefs {
			bare := "–"
			if b.Bare != 0 {
				bare = human(b.Bare)
			}
			var others []string
			for _, o := range b.Others {
				others = append(others, fmt.Sprintf("%s %s (%s)", o.Name, human(o.Median), times(o.Times)))
			}
			fmt.Fprintf(&w, "| %s | %s | %s | %s |\n", b.Work, human(b.Boxwire), bare, strings.Join(others, ", "))
		}
	}
	for _, s := range r.sources() {
		fmt.Fprintf(&w, "\n%s.\n", s)
	}
	w.WriteString("\n")
	return w.String()
}

// sources says where the rows were measured: in a line for all of them, or with their names.
func (r Release) sources() (lines []string) {
	var places []string
	rows := make(map[string][]string)
	for _, k := range r.Rows {
		place := strings.Join(append([]string{"`" + k.Command + "`", k.Measured}, k.Where...), ", ")
		if rows[place] == nil {
			places = append(places, place)
		}
		rows[place] = append(rows[place], k.Row)
	}
	for _, place := range places {
		line := place
		if len(places) > 1 {
			line = strings.Join(rows[place], ", ") + ": " + place
		}
		lines = append(lines, line)
	}
	return lines
}

// thousands writes a number of things.
func thousands(n int) string {
	if n < 1000 {
		return strconv.Itoa(n)
	}
	return fmt.Sprintf("%s,%03d", thousands(n/1000), n%1000)
}

// human writes microseconds with three digits.
func human(us float64) string {
	switch {
	case us < 999.5:
		return digits(us) + " µs"
	case us < 999.5e3:
		return digits(us/1e3) + " ms"
	}
	return digits(us/1e6) + " s"
}

func digits(v float64) string {
	switch {
	case v < 9.995:
		return fmt.Sprintf("%.2f", v)
	case v < 99.95:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.0f", v)
}

// times writes a ratio.
func times(v float64) string {
	if v < 9.95 {
		return fmt.Sprintf("%.1f ×", v)
	}
	return fmt.Sprintf("%.0f ×", v)
}
