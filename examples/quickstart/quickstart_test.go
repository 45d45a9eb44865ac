//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/boxwire/boxwire/examples/internal/selfcheck"
)

var update = flag.Bool("update", false, "write README's picture of the quickstart")

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
	svg := filepath.Join(t.TempDir(), "quickstart.svg")
	cmd := exec.Command("/proc/self/exe", "-json", "-svg", svg)
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
	var results []selfcheck.Result
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
	comparePicture(t, svg)
}

// comparePicture compares a picture with README's, but for the inode numbers of namespaces.
func comparePicture(t *testing.T, file string) {
	t.Helper()
	const kept = "../map/pictures/quickstart.svg"
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	numbers := make(map[string]string)
	got = regexp.MustCompile(`\b40\d{8}\b`).ReplaceAllFunc(got, func(inode []byte) []byte {
		if numbers[string(inode)] == "" {
			numbers[string(inode)] = fmt.Sprint(len(numbers) + 1)
		}
		return []byte(numbers[string(inode)])
	})
	if *update {
		if err := os.WriteFile(kept, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(kept)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("the picture is not README's; go test -run TestQuickstart -update writes it:\n%s", got)
	}
}
