// Package testutil holds what the tests of several packages share: the
// independent witnesses that results are read back with.
package testutil

import (
	"bytes"
	"context"
	"encoding/json"
	"os/exec"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil/tool"
	"github.com/boxwire/boxwire/netns"
)

// Witness looks for a program that tests check results with, such as ip or nft,
// and returns its path. Where it is missing the test is skipped, or fails if
// BOXWIRE_REQUIRE_WITNESS is 1.
func Witness(t testing.TB, name string) string {
	t.Helper()
	return tool.Path(t, name)
}

// Run runs a witness inside the namespace and returns its standard output. The test
// fails when the program does.
func Run(t testing.TB, ns *netns.NS, name string, args ...string) string {
	t.Helper()
	out, err := Try(t, ns, name, args...)
	if err != nil {
		t.Fatalf("%s %s in netns %v: %v\n%s", name, strings.Join(args, " "), ns, err, out)
	}
	return out
}

// Try is Run for commands that may fail: it returns how they ended, and the standard
// error after the output of those that failed. What others say there is left out: ip
// complains of each name in /run/netns that another test is making or removing.
func Try(t testing.TB, ns *netns.NS, name string, args ...string) (string, error) {
	t.Helper()
	path := Witness(t, name)
	return netns.Do(context.WithoutCancel(t.Context()), ns, func(context.Context) (string, error) {
		// The child inherits the namespaces of the thread that starts it.
		cmd := exec.Command(path, args...)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			out = append(out, stderr.Bytes()...)
		}
		return string(out), err
	})
}

// JSON runs a witness inside the namespace and decodes what it prints into v.
func JSON(t testing.TB, ns *netns.NS, v any, name string, args ...string) {
	t.Helper()
	out := Run(t, ns, name, args...)
	if strings.TrimSpace(out) == "" {
		out = "[]" // what ip -j prints for nothing, in some versions
	}
	if err := json.Unmarshal([]byte(out), v); err != nil {
		t.Fatalf("%s %s: %v in %q", name, strings.Join(args, " "), err, out)
	}
}
