package main

import (
	"net/netip"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Each test that the table of the reference plugins' tests names is there.
func TestTheTableOfReferenceTestsNamesTests(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	var source strings.Builder
	for _, f := range files {
		source.WriteString(readFile(t, f))
	}
	names := regexp.MustCompile(`\bTest[A-Z]\w+`).FindAllString(readFile(t, "REFERENCE.md"), -1)
	if len(names) < 50 {
		t.Errorf("the table names %d tests", len(names))
	}
	for _, name := range names {
		if !strings.Contains(source.String(), "func "+name+"(t *testing.T)") {
			t.Errorf("there is no %s", name)
		}
	}
}

func TestASetOfRangesIsGoneRound(t *testing.T) {
	t.Parallel()
	addr := netip.MustParseAddr
	set := []addrRange{
		{Subnet: netip.MustParsePrefix("10.1.0.0/29"), Start: addr("10.1.0.2"), End: addr("10.1.0.4")},
		{Subnet: netip.MustParsePrefix("10.2.0.0/29"), Start: addr("10.2.0.2"), End: addr("10.2.0.3")},
	}
	for i := range set {
		if err := set[i].complete(); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct{ name, last, taken, want string }{
		{"none was chosen yet", "", "", "10.1.0.2"},
		{"from the beginning", "10.1.0.2", "", "10.1.0.3"},
		{"from the end of a range", "10.1.0.4", "", "10.2.0.2"},
		{"from the end of the last", "10.2.0.3", "", "10.1.0.2"},
		{"past what is taken", "10.1.0.2", "10.1.0.3 10.1.0.4 10.2.0.2", "10.2.0.3"},
		{"round to itself", "10.1.0.3", "10.1.0.2 10.1.0.4 10.2.0.2 10.2.0.3", "10.1.0.3"},
		{"from one that is in no range any more", "10.9.0.9", "10.1.0.2", "10.1.0.3"},
		{"all are taken", "10.1.0.2", "10.1.0.2 10.1.0.3 10.1.0.4 10.2.0.2 10.2.0.3", "invalid IP"},
	} {
		last, _ := netip.ParseAddr(test.last)
		taken := map[netip.Addr]string{}
		for _, a := range strings.Fields(test.taken) {
			taken[addr(a)] = "another"
		}
		if got, _ := next(set, last, taken); got.String() != test.want {
			t.Errorf("%s: it is %v, want %s", test.name, got, test.want)
		}
	}
}
