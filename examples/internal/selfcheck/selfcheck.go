// Package selfcheck is what the quickstarts share: programs that run in namespaces of their own, show by checks what they do, and look
// at what they leave behind.
package selfcheck

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
)

// A Result is what one check found; its JSON form is the program's machine-readable output.
type Result struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
}

// A Report collects results in the order of the checks and, unless Quiet, prints each as it arrives.
type Report struct {
	Out     io.Writer
	Quiet   bool
	Width   int // of the column with the names
	results []Result
}

// Add reports a check. Its detail is what it showed, if err is nil.
func (r *Report) Add(name, detail string, err error) {
	one := Result{Name: name, OK: err == nil, Detail: detail}
	word := "ok  "
	if err != nil {
		word, one.Detail = "FAIL", strings.ReplaceAll(err.Error(), "\n", "; ") // joined errors come in lines
	}
	r.results = append(r.results, one)
	if !r.Quiet {
		fmt.Fprintf(r.Out, "%s %-*s %s\n", word, r.Width, name, one.Detail)
	}
}

// Err is nil only if every check held.
func (r *Report) Err() error {
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

// WriteJSON writes all results.
func (r *Report) WriteJSON() {
	enc := json.NewEncoder(r.Out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(r.results); err != nil {
		fmt.Fprintln(os.Stderr, "quickstart:", err)
	}
}
