//go:build linux

// Package labtest gives tests a [lab.Lab] that ends with them.
package labtest

import (
	"strings"
	"testing"

	"github.com/boxwire/boxwire/examples/fleet/internal/lab"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// Main is what TestMain calls, in place of netnstest.Main: it runs the tests in namespaces of their own, and the programs in
// the processes that labs start. The programs are those of [lab.Main].
func Main(m *testing.M, programs map[string]func(args []string) int) {
	lab.Main(programs)
	netnstest.Main(m)
}

// New makes a lab that is closed when the test and its subtests are over. If the test has failed, the state of the lab is
// printed first. Where namespaces are forbidden, the test is skipped, as netnstest.New does.
func New(t testing.TB, o lab.Options) *lab.Lab {
	t.Helper()
	netnstest.Need(t)
	l, err := lab.New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			var b strings.Builder
			l.Dump(&b)
			t.Log(b.String())
		}
		if err := l.Close(); err != nil {
			t.Errorf("closing the lab: %v", err)
		}
	})
	return l
}
