package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/boxwire/boxwire/internal/vmtest/protocol"
)

// column is the table's column: how all jobs went on one kernel.
type column struct {
	kernel  kernel
	jobs    []protocol.Job
	verbose bool
	results []*result // by job; nil for one that has not begun
	took    time.Duration
	err     error // of the guest itself

	began   time.Time
	running bool // a job is, with the following
	job     int
	since   time.Time
	raw     strings.Builder // what it has written
}

func newColumn(k kernel, jobs []protocol.Job, verbose bool) *column {
	return &column{kernel: k, jobs: jobs, verbose: verbose, results: make([]*result, len(jobs))}
}

// printing keeps the lines of guests that run side by side apart.
var printing sync.Mutex

func (c *column) printf(format string, args ...any) {
	printing.Lock()
	defer printing.Unlock()
	fmt.Printf("%-5s "+format+"\n", append([]any{c.kernel.name}, args...)...)
}

// run boots the kernel and runs the jobs. dir is the guest's own.
func (c *column) run(ctx context.Context, common tree, dir string, o options) {
	initramfs := filepath.Join(dir, "initramfs")
	if c.err = os.Mkdir(dir, 0o755); c.err != nil {
		return
	}
	if c.err = writeInitramfs(initramfs, common, c.kernel); c.err != nil {
		return
	}
	ctx, cancel := context.WithTimeoutCause(ctx, o.timeout, fmt.Errorf("the guest took longer than %v", o.timeout))
	defer cancel()
	c.began = time.Now()
	c.err = boot(ctx, c.kernel, initramfs, dir, o.kvm, func(r protocol.Record) { c.record(ctx, r) })
	c.took = time.Since(c.began)
	if c.running {
		c.end(context.WithoutCancel(ctx), c.job, 0, false) // what the guest died in
	}
	switch {
	case c.err != nil:
		c.printf("FAIL  %v", c.err)
	case c.verbose:
		c.printf("console:%s", indent(tail(consoleOf(dir))))
	}
}

// record takes one record of the guest.
func (c *column) record(ctx context.Context, r protocol.Record) {
	switch r.Event {
	case protocol.Boot:
		c.kernel.release = r.Text
		c.printf("booted %s in %.1f s", r.Text, time.Since(c.began).Seconds())
	case protocol.Start:
		c.running, c.job, c.since = true, r.Job, time.Now()
		c.raw.Reset()
	case protocol.Output:
		c.raw.WriteString(r.Text)
		if c.verbose {
			text := strings.TrimSuffix(plain(r.Text), "\n")
			c.printf("%s", strings.ReplaceAll(text, "\n", fmt.Sprintf("\n%-5s ", c.kernel.name)))
		}
	case protocol.Exit:
		c.end(ctx, r.Job, r.Status, true)
	}
}

// end takes stock of a job.
func (c *column) end(ctx context.Context, job, status int, over bool) {
	r, err := parse(ctx, strings.NewReader(c.raw.String()), judge{c.kernel.release, c.kernel.parameter != ""})
	if err != nil {
		r = &result{output: map[string]string{"": err.Error() + "\n" + c.raw.String()}, status: 1}
	}
	r.status, r.over, r.took = max(r.status, status), over, time.Since(c.since)
	c.results[job], c.running = r, false
	word := "ok  "
	if !r.ok() {
		word = "FAIL"
	}
	c.printf("%s  %s  %s  %.1f s", word, c.jobs[job].Name, r, r.took.Seconds())
	for _, line := range r.figures {
		c.printf("%s", line)
	}
	if r.ok() || c.verbose {
		return
	}
	for _, name := range r.failed {
		c.printf("%s%s", name, indent(r.output[name]))
	}
	for _, name := range r.unfounded {
		c.printf("%s was skipped, and not for a newer kernel: %s", name, r.reasons[name])
	}
	if len(r.unfinished) > 0 {
		c.printf("unfinished: %s", strings.Join(r.unfinished, " "))
	}
	if !over || r.status != 0 && len(r.failed) == 0 || len(r.unfinished) > 0 {
		c.printf("the end of its output:%s", indent(lastLines(plain(c.raw.String()), consoleTail)))
	}
}

// plain takes the marks for test2json out of a test's output.
func plain(text string) string {
	return strings.ReplaceAll(strings.ReplaceAll(text, "\x16=== NAME  \n", ""), "\x16", "")
}
