//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/boxwire/boxwire/examples/internal/selfcheck"
)

// runEnv makes the test binary be the quickstart. Its processes have other variables of the lab's.
const runEnv = "BOXWIRE_FLEET_QUICKSTART_RUN"

func TestMain(m *testing.M) {
	if os.Getenv(runEnv) != "" {
		main()
	}
	os.Exit(m.Run())
}

// names are those of the checks, which users and tools rely on.
var names = []string{
	"own-prefixes", "all-reach-all", "ways", "masquerade", "published", "published-elsewhere", "unpublished-closed",
	"agents-restart", "store-away", "host-dies", "host-returns", "clean-up",
}

// start runs the quickstart and returns what it prints and its exit status.
func start(t *testing.T, change func(*exec.Cmd), args ...string) (stdout, stderr string, status int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), runEnv+"=1")
	if change != nil {
		change(cmd)
	}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Skip("no user namespaces: ", err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// decode reads the JSON, which has to be all that was printed.
func decode(t *testing.T, stdout string) []selfcheck.Result {
	t.Helper()
	var results []selfcheck.Result
	if err := json.Unmarshal([]byte(stdout), &results); err != nil {
		t.Fatalf("%v in %q", err, stdout)
	}
	if len(results) != len(names) {
		t.Errorf("%d checks, want %d", len(results), len(names))
	}
	for i, r := range results {
		if i < len(names) && r.Name != names[i] {
			t.Errorf("check %d is %s, want %s", i, r.Name, names[i])
		}
	}
	return results
}

// All checks hold, one line each, and the picture has what they were made with.
func TestQuickstart(t *testing.T) {
	t.Parallel()
	stdout, stderr, status := start(t, nil)
	if status == exitNoSandbox {
		t.Skip(stderr)
	}
	if status != 0 {
		t.Errorf("it ended with %d: %s", status, stderr)
	}
	var held []string
	for line := range strings.Lines(stdout) {
		if rest, ok := strings.CutPrefix(line, "ok  "); ok {
			held = append(held, strings.Fields(rest)[0])
		} else if strings.HasPrefix(line, "FAIL") {
			t.Error(line)
		}
	}
	if strings.Join(held, " ") != strings.Join(names, " ") {
		t.Errorf("held: %v\nwant: %v", held, names)
	}
	for _, want := range []string{"\nhost1", "\nhost3-box2", "fl0 (vxlan", "boxes0 (bridge)", "\nNODE ", "this one"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("the picture has no %q:\n%s", want, stdout)
		}
	}
}

// Without IPv6 it says so, and the same checks hold. The JSON is all there is on the standard output.
func TestWithoutIPv6(t *testing.T) {
	t.Parallel()
	stdout, stderr, status := start(t, nil, "-json", "-4")
	if status == exitNoSandbox {
		t.Skip(stderr)
	}
	if status != 0 || !strings.Contains(stderr, "IPv4 only: ") || !strings.Contains(stderr, "IPv6 (") {
		t.Errorf("it ended with %d: %s", status, stderr)
	}
	for _, r := range decode(t, stdout) {
		if !r.OK || strings.Contains(r.Detail, "IPv6") {
			t.Errorf("%+v", r)
		}
	}
}

// Where nothing may be mounted the program says so, and that is all. A user namespace without a mount namespace is such a place.
func TestWhereNamespacesAreForbidden(t *testing.T) {
	t.Parallel()
	stdout, stderr, status := start(t, func(cmd *exec.Cmd) {
		cmd.Env = append(cmd.Env, "BOXWIRE_LAB_OUTER=net:[1]") // it takes this for the sandbox
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
			UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
		}
	}, "-json")
	if status != exitNoSandbox || !strings.Contains(stderr, "no namespaces of its own") {
		t.Errorf("it ended with %d: %s", status, stderr)
	}
	for _, r := range decode(t, stdout) {
		if r.OK || !strings.Contains(r.Detail, "no namespaces of its own") {
			t.Errorf("%+v", r)
		}
	}
}

func TestAWrongCommandLine(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"-no-such"}, {"box"}} {
		if stdout, stderr, status := start(t, nil, args...); status != 2 || stdout != "" || stderr == "" {
			t.Errorf("%v: it ended with %d: %q, %q", args, status, stdout, stderr)
		}
	}
}
