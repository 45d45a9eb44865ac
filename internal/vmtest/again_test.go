package main

import (
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/vmtest/protocol"
)

func TestOnlyFailedTestsAreRunAgain(t *testing.T) {
	t.Parallel()
	jobs := make([]protocol.Job, 5)
	for i := range jobs {
		jobs[i].Args = []string{"/tests/x.test", "-test.short", "-test.run="}
	}
	results := []*result{
		{over: true, pass: 3},
		{over: true, status: 1, fail: 2, failed: []string{"TestA", "TestA/x.y", "TestB"}},
		{over: false, status: 1, fail: 1, failed: []string{"TestDied"}},
		nil,
		{over: true, status: 1, fail: 1, failed: []string{"TestC"}, unfounded: []string{"TestSkipped"}},
	}
	again, which := failedJobs(jobs, results)
	if len(again) != 1 || which[0] != 1 {
		t.Fatalf("%d jobs are run again: %v", len(again), which)
	}
	if got := strings.Join(again[0].Args, " "); got != "/tests/x.test -test.short -test.run=^(TestA|TestB)$" {
		t.Errorf("the arguments are %s", got)
	}
	if jobs[1].Args[2] != "-test.run=" {
		t.Error("the job itself was changed")
	}
	r := results[1]
	r.forgive()
	if !r.ok() || !strings.Contains(r.String(), "3 PASSED LATE") {
		t.Errorf("after it passed: ok is %t, %s", r.ok(), r)
	}
}
