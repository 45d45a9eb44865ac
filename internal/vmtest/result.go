package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"time"
)

// event is what test2json says of a test.
type event struct {
	Action  string // run, output, pass, fail, skip and others
	Test    string // "" for the package
	Output  string
	Elapsed float64 // seconds, of a test that has ended
}

// result is how one package's tests went on one kernel.
type result struct {
	pass, fail, skip int                // tests without subtests
	failed           []string           // names, in order, with those above them
	late             []string           // of them, those that passed when they were run again; then none is in failed
	unfinished       []string           // names of tests that the binary's end cut short
	reasons          map[string]string  // why tests were skipped, by name
	unfounded        []string           // of them, those that the kernel does not account for
	output           map[string]string  // what each test wrote; "" for the package
	seconds          map[string]float64 // that each test without those above it took
	figures          []string           // the lines of benchmarks
	status           int                // of the test binary
	over             bool               // the binary has ended
	took             time.Duration
}

func (r *result) ok() bool {
	return r.over && r.status == 0 && r.fail+len(r.unfinished)+len(r.unfounded) == 0
}

// parse runs what a test binary writes with -test.v=test2json through go tool
// test2json.
func parse(ctx context.Context, raw io.Reader, j judge) (*result, error) {
	cmd := exec.CommandContext(ctx, "go", "tool", "test2json", "-t")
	cmd.Stdin = raw
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	r, err := collect(stdout, j)
	if werr := cmd.Wait(); err == nil && werr != nil {
		err = fmt.Errorf("go tool test2json: %w", werr)
	}
	return r, err
}

// collect reads the events of one package, with what j says of its skips.
func collect(events io.Reader, j judge) (*result, error) {
	r := &result{reasons: map[string]string{}, output: map[string]string{}, seconds: map[string]float64{}}
	ended := map[string]string{}
	var order []string
	d := json.NewDecoder(bufio.NewReader(events))
	for {
		var e event
		if err := d.Decode(&e); err == io.EOF {
			break
		} else if err != nil {
			return nil, err
		}
		switch e.Action {
		case "output":
			r.output[e.Test] += e.Output
		case "run":
			order = append(order, e.Test)
			ended[e.Test] = "" // until it ends; it need not if the binary dies
		case "pass", "fail", "skip":
			if e.Test != "" {
				ended[e.Test] = e.Action
				if !strings.Contains(e.Test, "/") {
					r.seconds[e.Test] = e.Elapsed
				}
			}
		}
	}
	names := slices.Sorted(maps.Keys(ended))
	for _, name := range order {
		// A test with subtests counts by them, unless it failed by itself.
		at, _ := slices.BinarySearch(names, name+"/")
		leaf := at == len(names) || !strings.HasPrefix(names[at], name+"/")
		switch {
		case ended[name] == "pass" && leaf:
			r.pass++
		case ended[name] == "skip":
			r.skip++
			r.reasons[name] = reason(r.output[name])
			if !j.founded(r.reasons[name]) {
				r.unfounded = append(r.unfounded, name)
			}
		case ended[name] == "" && strings.HasPrefix(name, "Benchmark"): // its line is its end
			if lines := strings.TrimSpace(plain(r.output[name])); strings.Contains(lines, "ns/op") {
				r.figures = append(r.figures, lines[strings.LastIndex(lines, "\n")+1:])
			}
		case ended[name] == "":
			r.unfinished = append(r.unfinished, name)
		case ended[name] == "fail":
			if leaf || !failsBelow(ended, name) {
				r.fail++
			}
			r.failed = append(r.failed, name)
		}
	}
	return r, nil
}

// failsBelow says whether a subtest of the test failed.
func failsBelow(ended map[string]string, name string) bool {
	for test, action := range ended {
		if strings.HasPrefix(test, name+"/") && action == "fail" {
			return true
		}
	}
	return false
}

// reason takes from a skipped test's output what it said.
func reason(output string) string {
	var said []string
	for line := range strings.Lines(output) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "=== ") || strings.HasPrefix(line, "--- ") {
			continue
		}
		said = append(said, line)
	}
	return strings.Join(said, " ")
}

// minimum is how a test names the first kernel that has what it needs, as
// testutil.NeedKernel does.
var minimum = regexp.MustCompile(`Linux >= (\d+)\.(\d+)`)

// helper is the reason of what is no test but a part of one.
const helper = "runs only in a process that another test starts"

// oldWitness is the reason of a test whose witness does not get along with the
// kernel.
var oldWitness = regexp.MustCompile(`the witness \S+ is too old for this kernel`)

// absence is the reason of a test whose program is not given to guests.
const absence = "the guest has no "

// ipv6 is what a test says of itself that needs IPv6, as testutil.NeedIPv6 does.
const ipv6 = "needs IPv6"

// judge says whether a test had to be skipped in a guest. A guest has all that a
// test could want, but for what its kernel is too old for or was booted without.
type judge struct {
	release     string
	withoutIPv6 bool
}

func (j judge) founded(reason string) bool {
	if strings.Contains(reason, absence) || strings.HasSuffix(reason, helper) || oldWitness.MatchString(reason) {
		return true
	}
	if j.withoutIPv6 && strings.Contains(reason, ipv6) {
		return true
	}
	m := minimum.FindStringSubmatch(reason)
	return m != nil && !newEnough(j.release, m[1]+"."+m[2])
}
