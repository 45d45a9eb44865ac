package main

import (
	"context"
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/boxwire/boxwire/internal/vmtest/protocol"
)

// runAgain runs the tests that failed once more, in a guest that runs when no
// other does. An emulated guest is many times slower than a machine, and slowest
// when the one beside it is busy: a bound that is generous anywhere else may run
// out. What passes then is listed as such; what fails twice has failed.
func (c *column) runAgain(ctx context.Context, common tree, dir string, o options) {
	jobs, which := failedJobs(c.jobs, c.results)
	if len(jobs) == 0 || c.err != nil || ctx.Err() != nil {
		return
	}
	work, err := json.Marshal(protocol.Work{Modules: modules, Jobs: jobs})
	if err != nil {
		c.err = err
		return
	}
	t := maps.Clone(common)
	t.write(protocol.JobsPath, work)
	c.printf("again: what failed of %d packages", len(jobs))
	second := newColumn(c.kernel, jobs, c.verbose)
	second.run(ctx, t, dir, o)
	c.took += second.took
	if second.err != nil {
		c.err = second.err
		return
	}
	for i, r := range second.results {
		// No test run would be no proof.
		if r != nil && r.ok() && r.pass > 0 {
			c.results[which[i]].forgive()
		}
	}
}

// failedJobs returns jobs that run nothing but the tests that failed, and which
// of the jobs each is made of. Jobs that died, or skipped what they should not,
// are not among them.
func failedJobs(jobs []protocol.Job, results []*result) (again []protocol.Job, which []int) {
	for i, r := range results {
		if r == nil || !r.over || len(r.failed) == 0 || len(r.unfinished)+len(r.unfounded) > 0 {
			continue
		}
		job := jobs[i]
		job.Args = slices.Clone(job.Args)
		for j, arg := range job.Args {
			if strings.HasPrefix(arg, "-test.run=") {
				job.Args[j] = "-test.run=" + exactly(r.failed)
			}
		}
		again, which = append(again, job), append(which, i)
	}
	return again, which
}

// exactly is the pattern of the tests themselves, without the names of subtests.
func exactly(failed []string) string {
	var names []string
	for _, name := range failed {
		test, _, _ := strings.Cut(name, "/")
		if test = regexp.QuoteMeta(test); !slices.Contains(names, test) {
			names = append(names, test)
		}
	}
	return "^(" + strings.Join(names, "|") + ")$"
}

// forgive counts the failed tests as passed late.
func (r *result) forgive() {
	r.late, r.failed, r.fail, r.status = r.failed, nil, 0, 0
}
