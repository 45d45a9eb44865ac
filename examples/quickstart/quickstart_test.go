//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"testing"
)

// runEnv makes the test binary be the quickstart.
const runEnv = "BOXWIRE_QUICKSTART_RUN"

func TestMain(m *testing.M) {
	if os.Getenv(runEnv) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// All checks hold, in the order and by the names that users and tools rely on, and the JSON is all there is.
func TestQuickstart(t *testing.T) {
	want := []string{
		"isolated-interfaces", "own-routes", "own-firewall", "host-sees-veths", "same-port-twice", "published-from-host",
		"published-from-outside", "published-ipv6", "loopback-only", "unpublished-closed", "masquerade", "shared-namespace",
		"siblings", "hairpin", "clean-up",
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.Command("/proc/self/exe", "-json")
	cmd.Env = append(os.Environ(), runEnv+"=1")
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && (exit.ExitCode() == exitNoSandbox || exit.ExitCode() == exitNoIPv6) {
		t.Skip(stderr.String())
	}
	if err != nil {
		t.Errorf("%v\n%s", err, &stderr)
	}
	var results []result
	if err := json.Unmarshal(stdout.Bytes(), &results); err != nil {
		t.Fatalf("%v in %q", err, &stdout)
	}
	for i, r := range results {
		if i >= len(want) || r.Name != want[i] || !r.OK {
			t.Errorf("check %d: %+v", i, r)
		}
	}
	if len(results) != len(want) {
		t.Errorf("%d checks, want %d", len(results), len(want))
	}
}
