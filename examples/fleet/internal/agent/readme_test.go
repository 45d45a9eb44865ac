package agent

import (
	"os"
	"regexp"
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// The README's table has each metric, and no other.
func TestReadmeHasTheMetrics(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	var want, got []string
	for _, m := range regexp.MustCompile("(?m)^\\| `(boxwire_fleet_[a-z_]+)`").FindAllSubmatch(readme, -1) {
		got = append(got, string(m[1]))
	}
	descs := make(chan *prometheus.Desc)
	go func() {
		newMetrics().registry.Describe(descs)
		close(descs)
	}()
	name := regexp.MustCompile(`fqName: "([a-z_]+)"`)
	for d := range descs {
		want = append(want, name.FindStringSubmatch(d.String())[1])
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("the table has %q\nand the agent %q", got, want)
	}
}
