package main

import (
	"strings"
	"testing"
)

func TestArchiveIsDebiansOwn(t *testing.T) {
	t.Parallel()
	const debian12 = "PRETTY_NAME=\"Debian GNU/Linux 12\"\nVERSION_CODENAME=bookworm\nID=debian\n"
	for _, c := range []struct{ name, sources, os, want string }{
		{"by its release", "bookworm main http://a/debian/\n", debian12, "http://a/debian/"},
		{"not the security updates", "bookworm-security main http://s/\nbookworm-updates main http://a/\nbookworm main http://a/debian/\n", debian12, "http://a/debian/"},
		{"not a third party's", "bookworm stable http://x/\nnodistro main http://y/\nbookworm main http://a/\n", debian12, "http://a/"},
		{"by an alias", "stable main mirror+file:/etc/apt/mirrors\n", debian12, "mirror+file:/etc/apt/mirrors"},
		{"the newest", "sid main http://a/\n", "ID=debian\n", "http://a/"},
		{"no sources", "", debian12, ""},
		{"another distribution", "noble main http://u/ubuntu/\n", "ID=ubuntu\nID_LIKE=debian\nVERSION_CODENAME=noble\n", ""},
	} {
		if got := pickArchive(c.sources, c.os); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestMissingProgramNamesItsPackage(t *testing.T) {
	if _, err := find("sh"); err != nil {
		t.Error(err)
	}
	t.Setenv("PATH", t.TempDir()) // QEMU is in /usr/bin, where find looks by the PATH alone
	want := "qemu-system-x86_64 is not installed: it comes with Debian's package qemu-system-x86"
	if err := test(t.Context(), options{kernels: []string{"6.1"}, parallel: 1}); err == nil || err.Error() != want {
		t.Errorf("without QEMU: %v, want %s", err, want)
	}
	if _, err := find("no-such-program"); err == nil || err.Error() != "no-such-program is not installed" {
		t.Errorf("find: %v", err)
	}
}

func TestFailedProgramIsQuoted(t *testing.T) {
	t.Parallel()
	_, err := output(t.Context(), "", "sh", "-c", "echo what it says >&2; exit 3")
	if err == nil || !strings.Contains(err.Error(), "sh: exit status 3\nwhat it says") {
		t.Errorf("output: %v", err)
	}
}
