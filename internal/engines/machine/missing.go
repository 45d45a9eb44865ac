package machine

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// allowEnv has the names of engines that may be missing, with commas between.
const allowEnv = "BOXWIRE_ENGINES_ALLOW_MISSING"

// versionsEnv names a file to which each machine adds a line: engine, tab, version.
const versionsEnv = "BOXWIRE_ENGINES_VERSIONS"

// Missing ends the test because the machine's engine is not there, is too old, or cannot start. It fails the test, or
// skips it if BOXWIRE_ENGINES_ALLOW_MISSING names the engine.
func (m *Machine) Missing(t testing.TB, why error) {
	t.Helper()
	missing(t, m.config.Engine, m.version, why)
}

// Missing is [Machine.Missing] of something else that a test needs, e.g. of a part of the kernel.
func Missing(t testing.TB, engine string, why error) {
	t.Helper()
	missing(t, engine, "", why)
}

func missing(t testing.TB, engine, version string, why error) {
	t.Helper()
	about := engine
	if version != "" {
		about += " (" + version + ")"
	}
	if slices.Contains(strings.Split(os.Getenv(allowEnv), ","), engine) {
		t.Skipf("machine: %s is missing, and %s allows that: %v", about, allowEnv, why)
	}
	t.Fatalf("machine: %s is missing: %v", about, why)
}

// recordVersion logs the version of an engine, and adds it to the file of versionsEnv.
func recordVersion(t testing.TB, engine, version string) {
	t.Helper()
	version = strings.Join(strings.FieldsFunc(version, func(r rune) bool { return r == '\n' }), "; ")
	t.Logf("engine %s: %s", engine, version)
	path := os.Getenv(versionsEnv)
	if path == "" {
		return
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err == nil {
		_, err = fmt.Fprintf(f, "%s\t%s\n", engine, version)
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}
	if err != nil {
		t.Errorf("machine: recording the version of %s: %v", engine, err)
	}
}
