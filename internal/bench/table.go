package main

import (
	"fmt"
	"io"
)

// printResult prints a row for a person.
func printResult(w io.Writer, r Result) {
	fmt.Fprintf(w, "\n%s: %s\n", r.Row, r.Work)
	for _, s := range r.Series {
		fmt.Fprintf(w, "  %-36s %12.1f us a %s   (%.1f to %.1f, %d rounds)\n", s.Name, s.Median, r.Unit, s.Min, s.Max, s.Rounds)
	}
	for _, c := range r.Claims {
		mark := "ok  "
		if !c.Holds {
			mark = "MISS"
		}
		fmt.Fprintf(w, "  %s %-44s %s\n", mark, c.Text, c)
	}
	for _, n := range r.Notes {
		fmt.Fprintf(w, "  %s\n", n)
	}
	if r.NotRun != "" {
		fmt.Fprintf(w, "  not run: %s\n", r.NotRun)
	}
	if r.Error != "" {
		fmt.Fprintf(w, "  FAILED: %s\n", r.Error)
	}
	fmt.Fprintf(w, "  %.1f s\n", r.Seconds)
}
