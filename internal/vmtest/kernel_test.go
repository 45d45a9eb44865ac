package main

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestKernelsAreNamedOrRefused(t *testing.T) {
	t.Parallel()
	got, err := parseKernels("7.2,5.10")
	if err != nil || !slices.Equal(got, []string{"7.2", "5.10"}) {
		t.Errorf("parseKernels: %v, %v", got, err)
	}
	for list, want := range map[string]string{
		"":          `kernel "" is not known`,
		"5.11":      `kernel "5.11" is not known: it can be any of 5.10, 6.1, 6.12, 7.2`,
		"5.10, 6.1": `kernel " 6.1" is not known`,
		"../x":      `kernel "../x" is not known`,
		"6.1,6.1":   "kernel 6.1 is named twice",
	} {
		if _, err := parseKernels(list); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("parseKernels(%q): %v, want %q", list, err, want)
		}
	}
}

func TestReleasesAndVersions(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		release, name string
		want          bool
	}{
		{"5.10.0-32-amd64", "5.10", true},
		{"5.100.1", "5.10", false},
		{"6.1.0-50-amd64", "6.1", true},
		{"6.12.117+deb13-amd64", "6.1", false},
		{"7.2.13+deb14-amd64", "7.2", true},
		{"7.3-amd64", "7.2", true}, // what moves may be newer
		{"8.0.1-amd64", "7.2", true},
		{"7.1.9-amd64", "7.2", false},
	} {
		if got := fits(c.release, c.name); got != c.want {
			t.Errorf("fits(%s, %s) = %t", c.release, c.name, got)
		}
	}
	for _, c := range []struct {
		release, version string
		want             bool
	}{
		{"6.12.117+deb13-amd64", "6.12", true},
		{"6.12.117+deb13-amd64", "6.13", false},
		{"5.10.0", "5.9", true},
		{"7.0", "6.20", true},
		{"", "0.1", false},
	} {
		if got := newEnough(c.release, c.version); got != c.want {
			t.Errorf("newEnough(%q, %s) = %t", c.release, c.version, got)
		}
	}
}

func TestCacheHoldsOnlyWholeKernels(t *testing.T) {
	t.Parallel()
	cache := t.TempDir()
	// What a fetch leaves that was killed: everything, but under another name.
	half := filepath.Join(cache, ".6.1-123", "ready", "lib/modules/6.1.0-50-amd64")
	if err := os.MkdirAll(half, 0o755); err != nil {
		t.Fatal(err)
	}
	if k, err := cached(cache, "6.1"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("cached before: %v, %v", k, err)
	}
	if err := os.Rename(filepath.Join(cache, ".6.1-123", "ready"), filepath.Join(cache, "6.1")); err != nil {
		t.Fatal(err)
	}
	k, err := cached(cache, "6.1")
	if err != nil || k.release != "6.1.0-50-amd64" || k.image() != filepath.Join(cache, "6.1", "vmlinuz") {
		t.Errorf("cached after: %+v, %v", k, err)
	}
}
