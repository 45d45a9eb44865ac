package containerd

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// specs are critest's about pods and their network: all of Networking, PodSandbox and Multiple Containers, and those of
// others that are about pods' ends and ports.
const specs = `\[k8s.io\] (Networking|PodSandbox|Multiple Containers|Idempotence)|portforward|HostNetwork`

// outcome is what critest has found.
type outcome struct {
	passed  []string
	failed  []string          // with the reason
	skipped map[string]string // of the specs: the reason
}

func (o outcome) String() string {
	return fmt.Sprintf("%d passed, %d failed, %d skipped", len(o.passed), len(o.failed), len(o.skipped))
}

// critest runs Kubernetes' tests of an engine, and counts.
func (e *engine) critest(t *testing.T) {
	args := []string{"--ginkgo.no-color", "--ginkgo.timeout=5m", "--ginkgo.json-report=/tmp/critest.json", "--ginkgo.focus=" + specs}
	for _, name := range e.without {
		args = append(args, "--ginkgo.skip="+regexp.QuoteMeta(name))
	}
	out, err := e.m.Try("critest", args...)
	o, jerr := parseReport(e.m.ReadFile(t, "/tmp/critest.json"))
	if jerr != nil {
		t.Fatalf("critest: %v, %v\n%s", jerr, err, out)
	}
	t.Logf("critest: %v\n%s", o, strings.Join(o.passed, "\n"))
	for _, name := range slices.Sorted(maps.Keys(o.skipped)) {
		t.Logf("critest skipped %s: %s", name, o.skipped[name])
	}
	if err != nil || len(o.failed) > 0 || len(o.passed) != e.passed || !maps.Equal(o.skipped, e.skipped) {
		t.Errorf("critest: %v; want %d passed, 0 failed, %d skipped: %v\n%s\n%s", o, e.passed, len(e.skipped), err, strings.Join(o.failed, "\n"), out)
	}
}

// parseReport reads ginkgo's report.
func parseReport(report string) (outcome, error) {
	var suites []struct {
		SpecReports []struct {
			ContainerHierarchyTexts           []string
			LeafNodeType, LeafNodeText, State string
			Failure                           struct{ Message string }
		}
	}
	o := outcome{skipped: map[string]string{}}
	if err := json.Unmarshal([]byte(report), &suites); err != nil {
		return o, err
	}
	focus := regexp.MustCompile(specs)
	for _, suite := range suites {
		for _, s := range suite.SpecReports {
			name := strings.Join(append(s.ContainerHierarchyTexts, s.LeafNodeText), " ")
			switch {
			case s.State == "passed":
				if s.LeafNodeType == "It" { // not what comes before all
					o.passed = append(o.passed, name)
				}
			case s.State != "skipped":
				o.failed = append(o.failed, name+": "+s.Failure.Message)
			case focus.MatchString(name) && !strings.Contains(name, "benchmark"): // which is for another run
				o.skipped[name] = s.Failure.Message
			}
		}
	}
	return o, nil
}
