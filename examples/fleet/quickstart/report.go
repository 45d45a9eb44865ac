//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
)

// A result is what one check found; its JSON form is the program's machine-readable output.
type result struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
}

// A report collects results in the order of the checks and, unless quiet, prints each as it arrives.
type report struct {
	out     io.Writer
	quiet   bool
	results []result
}

func (r *report) add(name, detail string, err error) {
	one := result{Name: name, OK: err == nil, Detail: detail}
	word := "ok  "
	if err != nil {
		word, one.Detail = "FAIL", strings.ReplaceAll(err.Error(), "\n", "; ") // joined errors come in lines
	}
	r.results = append(r.results, one)
	if !r.quiet {
		fmt.Fprintf(r.out, "%s %-19s %s\n", word, name, one.Detail)
	}
}

// failAll reports every check as failed for one reason: nothing could be tried.
func (r *report) failAll(err error) {
	for _, c := range checks {
		r.add(c.name, "", err)
	}
	r.add(cleanUpName, "", err)
}

// err is nil only if every check held.
func (r *report) err() error {
	failed := 0
	for _, one := range r.results {
		if !one.OK {
			failed++
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d checks failed", failed, len(r.results))
	}
	return nil
}

func (r *report) writeJSON() {
	enc := json.NewEncoder(r.out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(r.results); err != nil {
		fmt.Fprintln(os.Stderr, "quickstart:", err)
	}
}
