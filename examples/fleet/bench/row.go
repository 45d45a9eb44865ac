//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"time"
)

// A row is one kind of work.
type row struct {
	name    string // of the command line and the page
	work    string // what is done, in one sentence
	rounds  int    // at full size
	flannel bool   // flannel does it, too
	run     func(ctx context.Context, b *bout) error
}

// A bout is a row under way.
type bout struct {
	rounds int
	quick  bool // sizes are small, and the figures are not worth anything
	result Result
}

// size is how large something is.
func (b *bout) size(full, quick int) int {
	if b.quick {
		return quick
	}
	return full
}

// Result is what a row has shown.
type Result struct {
	Row, Work string
	Series    []*Series
	Claims    []Claim
	Notes     []string
	NotRun    string // why not
	Error     string
	Took      time.Duration // the whole row
}

// notRun is the error of a row that this machine cannot run, and why.
type notRun string

func (n notRun) Error() string { return string(n) }

// patience ends a row that hangs.
const patience = 5 * time.Minute

// measure runs the row.
func (r *row) measure(ctx context.Context, o options) Result {
	b := &bout{rounds: r.rounds, quick: o.quick, result: Result{Row: r.name, Work: r.work}}
	switch {
	case o.n > 0:
		b.rounds = o.n
	case o.quick:
		b.rounds = 1
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	runtime.GC() // of what the row before has left
	began := time.Now()
	err := profile(o.pprof, r.name, func() error { return r.run(ctx, b) })
	b.result.Took = time.Since(began)
	if b.quick {
		b.result.Claims = nil // small sizes say nothing about targets
	}
	var reason notRun
	switch {
	case errors.As(err, &reason):
		b.result.NotRun = reason.Error()
	case err != nil:
		b.result.Error = err.Error()
	}
	return b.result
}

// profile runs a function and writes its CPU profile, if there is a directory for that.
func profile(dir, name string, fn func() error) error {
	if dir == "" {
		return fn()
	}
	f, err := os.Create(filepath.Join(dir, name+".prof"))
	if err != nil {
		return err
	}
	defer f.Close()
	if err := pprof.StartCPUProfile(f); err != nil {
		return err
	}
	defer pprof.StopCPUProfile()
	return fn()
}

// note adds a sentence to the page.
func (b *bout) note(format string, args ...any) {
	b.result.Notes = append(b.result.Notes, fmt.Sprintf(format, args...))
}
