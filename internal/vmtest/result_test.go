package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/vmtest/protocol"
)

// raw is what test binaries write with -test.v=test2json: § stands for the mark
// before a line of the testing package.
func raw(text string) string { return strings.ReplaceAll(text, "§", "\x16") }

const mixed = `§=== RUN   TestPasses
§--- PASS: TestPasses (0.01s)
§=== RUN   TestTable
§=== RUN   TestTable/good
§=== RUN   TestTable/bad
    x_test.go:12: 1, want 2
§=== NAME  TestTable
§--- FAIL: TestTable (0.02s)
§    --- PASS: TestTable/good (0.00s)
§    --- FAIL: TestTable/bad (0.00s)
§=== NAME  
§=== RUN   TestNetkit
    x_test.go:20: needs netkit (Linux >= 6.7; this is 6.1.0): operation not supported
§--- SKIP: TestNetkit (0.00s)
§=== RUN   TestChild
    x_test.go:25: runs only in a process that another test starts
§--- SKIP: TestChild (0.00s)
§=== RUN   TestTableOfTwo
§=== RUN   TestTableOfTwo/b
§--- PASS: TestTableOfTwo (0.00s)
§    --- PASS: TestTableOfTwo/b (0.00s)
§=== RUN   TestTableOf
§--- PASS: TestTableOf (0.00s)
§FAIL
`

func TestResultsAreCounted(t *testing.T) {
	t.Parallel()
	r, err := parse(t.Context(), strings.NewReader(raw(mixed)), judge{release: "6.1.0-50-amd64"})
	if err != nil {
		t.Fatal(err)
	}
	r.over, r.status = true, 1
	if got := r.String(); got != "4 passed, 1 FAILED, 2 skipped" || r.ok() {
		t.Errorf("%s, ok %t", got, r.ok())
	}
	if fmt.Sprint(r.failed) != "[TestTable TestTable/bad]" || !strings.Contains(r.output["TestTable/bad"], "1, want 2") {
		t.Errorf("failed %v, output %q", r.failed, r.output["TestTable/bad"])
	}
	want := "x_test.go:20: needs netkit (Linux >= 6.7; this is 6.1.0): operation not supported"
	if r.reasons["TestNetkit"] != want || len(r.unfounded) > 0 {
		t.Errorf("reasons %v, unfounded %v", r.reasons, r.unfounded)
	}
}

// A benchmark ends with its line. One that fails counts as a test does.
func TestBenchmarksAreNoUnfinishedTests(t *testing.T) {
	t.Parallel()
	r, err := parse(t.Context(), strings.NewReader(raw(`goos: linux
§=== RUN   BenchmarkPackets
BenchmarkPackets
§=== RUN   BenchmarkPackets/short
BenchmarkPackets/short
BenchmarkPackets/short-2   	     235	   4866667 ns/op	         1.293 rules/bare
§=== RUN   BenchmarkBroken
BenchmarkBroken
    x_test.go:12: no answer
§--- FAIL: BenchmarkBroken
§FAIL
`)), judge{release: "6.12.0"})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.unfinished) > 0 || fmt.Sprint(r.failed) != "[BenchmarkBroken]" {
		t.Errorf("unfinished %v, failed %v", r.unfinished, r.failed)
	}
	if len(r.figures) != 1 || !strings.HasPrefix(r.figures[0], "BenchmarkPackets/short-2") || !strings.HasSuffix(r.figures[0], "rules/bare") {
		t.Errorf("figures %q", r.figures)
	}
}

func TestSkipWithoutNeedIsAFailure(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		reason, release, want string
		withoutIPv6           bool
	}{
		{"needs netkit (Linux >= 6.7; this is 6.1)", "6.1.0-50-amd64", "1 skipped", false},
		{"needs netkit (Linux >= 6.7; this is 6.12)", "6.12.117+deb13-amd64", "1 SKIPPED WITHOUT NEED", false},
		{"needs netkit (Linux >= 6.7; this is 6.7)", "6.7.0", "1 SKIPPED WITHOUT NEED", false},
		{"the witness nft is too old for this kernel: version 1.0.6", "7.2.13", "1 skipped", false},
		{"the kernel has no netkit", "5.10.0", "1 SKIPPED WITHOUT NEED", false},
		{"too slow", "5.10.0", "1 SKIPPED WITHOUT NEED", false},
		{"needs IPv6: this kernel has none", "6.12.0", "1 skipped", true},
		{"needs IPv6: this kernel has none", "6.12.0", "1 SKIPPED WITHOUT NEED", false},
		{"too slow", "6.12.0", "1 SKIPPED WITHOUT NEED", true},
	} {
		text := raw("§=== RUN   TestX\n    x_test.go:1: " + c.reason + "\n§--- SKIP: TestX (0.00s)\n§PASS\n")
		r, err := parse(t.Context(), strings.NewReader(text), judge{c.release, c.withoutIPv6})
		if err != nil {
			t.Fatal(err)
		}
		r.over = true
		if got := r.String(); got != c.want || r.ok() != (got == "1 skipped") {
			t.Errorf("%s on %s: %s, ok %t, want %s", c.reason, c.release, got, r.ok(), c.want)
		}
	}
}

func TestCutShortResultsFail(t *testing.T) {
	t.Parallel()
	const half = "§=== RUN   TestOne\n§--- PASS: TestOne (0.00s)\n§=== RUN   TestTwo\n    x_test.go:1: going on\n"
	for _, c := range []struct {
		name, text string
		over       bool
		status     int
		want       string
	}{
		{"the guest died", half, false, 0, "1 passed, 1 UNFINISHED, DIED"},
		{"the binary died", half, true, 139, "1 passed, 1 UNFINISHED, STATUS 139"},
		{"it exited in a test", half, true, 0, "1 passed, 1 UNFINISHED"},
		{"a bad status alone", "§=== RUN   TestOne\n§--- PASS: TestOne (0.00s)\n§PASS\n", true, 3, "1 passed, STATUS 3"},
		{"it did not start", "", true, 127, "STATUS 127"},
		{"died before it started", "", false, 0, "DIED"},
	} {
		r, err := parse(t.Context(), strings.NewReader(raw(c.text)), judge{release: "6.1.0"})
		if err != nil {
			t.Fatal(err)
		}
		r.over, r.status = c.over, c.status
		if got := r.String(); got != c.want || r.ok() {
			t.Errorf("%s: %s, ok %t, want %s", c.name, got, r.ok(), c.want)
		}
	}
	r, err := parse(t.Context(), strings.NewReader("testing: warning: no tests to run\n§PASS\n"), judge{release: "6.1.0"})
	if err != nil {
		t.Fatal(err)
	}
	r.over = true
	if got := r.String(); got != "no tests" || !r.ok() {
		t.Errorf("nothing to run: %s, ok %t", got, r.ok())
	}
}

func TestReport(t *testing.T) {
	t.Parallel()
	jobs := []protocol.Job{{Name: "link"}, {Name: "netns (user)"}}
	good := func() *result { return &result{pass: 3, over: true} }
	needs := func(skips int) *result {
		return &result{pass: 2, skip: skips, over: true, reasons: map[string]string{"TestNetkit": "needs netkit (Linux >= 6.7)"}}
	}
	table := func(results ...[]*result) (string, error) {
		names := []kernel{{name: "5.10", release: "5.10.0-32-amd64"}, {name: "7.2", release: "7.2.13+deb14-amd64"}}
		var columns []*column
		for i, r := range results {
			c := newColumn(names[i], jobs, false)
			copy(c.results, r)
			columns = append(columns, c)
		}
		var b strings.Builder
		err := report(&b, jobs, columns)
		return b.String(), err
	}

	long := good()
	long.seconds = map[string]float64{"TestThree": 3, "TestNine": 9.2}
	got, err := table([]*result{needs(1), good()}, []*result{good(), long})
	want := `
package        5.10.0-32-amd64       7.2.13+deb14-amd64
link           2 passed, 1 skipped   3 passed
netns (user)   3 passed              3 passed
seconds        0                     0

skipped:
  5.10: link TestNetkit: needs netkit (Linux >= 6.7)

slowest:
  9 s  7.2: netns (user) TestNine
  3 s  7.2: netns (user) TestThree
`
	if err != nil || got != want {
		t.Errorf("report: %v\n%s\nwant\n%s", err, got, want)
	}
	got, err = table([]*result{needs(1), good()}, []*result{needs(1), nil})
	for _, part := range []string{"NOT RUN", "\n  5.10, 7.2: link TestNetkit: needs netkit"} {
		if err == nil || !strings.Contains(got, part) {
			t.Errorf("report of what did not run: %v\n%s\nwant %q", err, got, part)
		}
	}
	got, err = table([]*result{needs(1), {pass: 1, fail: 1, over: true, failed: []string{"TestTwo"}, output: map[string]string{"TestTwo": "x_test.go:7: got 1\n"}}})
	if err == nil || !strings.Contains(got, "1 passed, 1 FAILED") {
		t.Errorf("report of a failure: %v\n%s", err, got)
	}
	// What matters most ends the report, where a log that is cut keeps it.
	if end := "\nFAIL 5.10: netns (user) TestTwo\n    x_test.go:7: got 1\n"; !strings.HasSuffix(got, end) {
		t.Errorf("the report of a failure is\n%s\nand should end with\n%s", got, end)
	}
}
