package main

import (
	"errors"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/nat"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

// The program in the README is this one.
func TestREADMEShowsTheProgram(t *testing.T) {
	t.Parallel()
	source, err := os.ReadFile("main.go")
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile("../../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	program := string(source[strings.Index(string(source), "package main\n"):])
	if !strings.Contains(string(readme), "```go\n"+program+"```\n") {
		t.Errorf("README.md does not hold the program as a go block; it should read:\n%s", program)
	}
}

// It runs twice, in the namespace of the tests, and leaves that as it was.
func TestProgram(t *testing.T) {
	netnstest.Need(t)
	host, err := netns.Current()
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	up(t, host)
	const forward = "net.ipv4.ip_forward"
	before, err := host.Sysctl(t.Context(), forward)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if got := output(t, main); !regexp.MustCompile(`^hello 10\.88\.0\.1:\d+, this is the box\n$`).MatchString(got) {
			t.Errorf("it printed %q", got)
		}
		links, err := link.List(t.Context(), host, link.Filter{})
		if err != nil || len(links) != 1 || links[0].Name != "lo" {
			t.Errorf("it left links: %v, %v", links, err)
		}
		if err := nat.Check(t.Context(), host, "hello", nat.State{}); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("it left its table: %v", err)
		}
		if after, err := host.Sysctl(t.Context(), forward); err != nil || after != before {
			t.Errorf("%s was %s and is %s, %v", forward, before, after, err)
		}
	}
}

// up sets the loopback link up.
func up(t *testing.T, ns *netns.NS) {
	t.Helper()
	lo, err := link.Get(t.Context(), ns, "lo")
	if err == nil {
		err = lo.SetUp(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// output returns what fn prints.
func output(t *testing.T, fn func()) string {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	stdout := os.Stdout
	os.Stdout = w
	func() {
		defer func() { os.Stdout = stdout; w.Close() }()
		fn()
	}()
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
