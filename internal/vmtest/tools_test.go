package main

import (
	"slices"
	"strings"
	"testing"
)

func TestLibrariesAreThoseOfTheLoader(t *testing.T) {
	t.Parallel()
	got, err := parseLibraries("\tlinux-vdso.so.1 (0x00007ffd0b1f2000)\n" +
		"\tlibmnl.so.0 => /lib/x86_64-linux-gnu/libmnl.so.0 (0x00007f0d1e8a6000)\n" +
		"\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f0d1e6c5000)\n" +
		"\t/lib64/ld-linux-x86-64.so.2 (0x00007f0d1ea5f000)\n")
	want := []string{"/lib/x86_64-linux-gnu/libmnl.so.0", "/lib/x86_64-linux-gnu/libc.so.6"}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("parseLibraries: %v, %v, want %v", got, err, want)
	}
	if _, err := parseLibraries("\tlibmnl.so.0 => not found\n"); err == nil || !strings.Contains(err.Error(), "libmnl.so.0: not found") {
		t.Errorf("a missing library: %v", err)
	}
}

func TestWitnessesComeWithTheirLibraries(t *testing.T) {
	t.Parallel()
	for _, name := range append(slices.Clone(witnesses), "busybox") {
		if _, err := find(name); err != nil {
			t.Skip(err)
		}
	}
	made := tree{}
	if err := addTools(t.Context(), made); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"/usr/sbin/ip", "/usr/sbin/nft", "/usr/bin/busybox", "/usr/bin/env", "/usr/bin/sh", "/bin", "/sbin", "/usr/sbin/modprobe"} {
		if !made.has(name) {
			t.Errorf("%s is missing", name)
		}
	}
	if made.has("/usr/bin/ip") {
		t.Error("busybox stands in for the witness ip")
	}
	for _, part := range []string{"/libc.so.6", "/libnftables.so.", "/ld-linux"} {
		found := false
		for name := range made {
			found = found || strings.Contains(name, part)
		}
		if !found {
			t.Errorf("no %s*", part)
		}
	}
}
