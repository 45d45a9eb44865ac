package main

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/topology"
	"github.com/boxwire/boxwire/internal/topology/firewall"
)

// published stands for a machine with a box that has a port.
func published(context.Context) (*topology.Snapshot, error) {
	return &topology.Snapshot{Namespaces: []*topology.Namespace{
		{
			Inode: 1, Own: true, Links: []*topology.Link{
				{Index: 2, Name: "br0", Kind: "bridge"},
				{Index: 3, Name: "veth0", Kind: "veth", Master: "br0", Peer: &topology.End{Inode: 2, Link: "eth0", Index: 2}},
			},
			Listeners: []topology.Listener{{Proto: "udp", Addr: netip.MustParseAddrPort("0.0.0.0:53")}},
			Ports: []topology.Port{{
				Table: "inet boxwire", Proto: "tcp", Host: netip.MustParseAddrPort("0.0.0.0:8080"), Last: 8089, Owner: "web",
				Box: netip.MustParseAddrPort("10.88.0.2:8080"), To: &topology.End{Inode: 2, Link: "eth0", Index: 2},
			}},
		},
		{Inode: 2, Names: []string{"/run/netns/web"}, Links: []*topology.Link{
			{Index: 2, Name: "eth0", Kind: "veth", Peer: &topology.End{Inode: 1, Link: "veth0", Index: 3}},
		}},
	}}, nil
}

func TestWhy(t *testing.T) {
	t.Parallel()
	const way = `visitors of  :8080-8089  of  host
  -> table inet boxwire  translates it to  10.88.0.2:8080  for web
  -> link veth0, a port of br0  of  host
  -> link eth0  of  web
`
	for _, test := range []struct {
		port   string
		words  string
		err    error
		status int
		want   string
	}{
		{port: "8080", words: "first\nsecond", want: way + "  cause: first\n  cause: second\n"},
		{port: "8085/tcp", want: way + "  no cause is found on this machine that it should not answer\n"},
		{port: "8080", err: firewall.ErrForeign, want: way + "  the rules of other firewalls are not examined further\n"},
		{port: "8080", words: "\x1b[2J", want: way + "  cause: \\x1b[2J\n"},
		{port: "192.0.2.1:8089", err: os.ErrPermission, want: way + "  it cannot be explained: permission denied\n"},
		{port: "8090", status: 1, want: "no namespace publishes port 8090\n"},
		{port: "8080/udp", status: 1, want: "no namespace publishes port 8080/udp\n"},
		{port: "[::1]:8080", status: 1, want: "no namespace publishes port [::1]:8080\n"},
		{port: "53", status: 1, want: "no namespace publishes port 53\n  but a program listens on it in host\n"},
		{port: "0", status: 2},
		{port: "65536", status: 2},
		{port: "80/sctp", status: 2},
		{port: "localhost:80", status: 2},
		{port: "1.2.3.4:0", status: 2},
		{port: "\x1b[31m", status: 2},
	} {
		var out, errs bytes.Buffer
		ask := func(context.Context, *topology.Snapshot, uint64, topology.Port) (string, error) {
			return test.words, test.err
		}
		status := run(t.Context(), []string{"-why", test.port}, published, source{explain: ask}, &out, &errs)
		if status != test.status || out.String() != test.want || strings.Contains(errs.String(), "\x1b") || (errs.Len() > 0) != (status > 0) {
			t.Errorf("-why %q ended with %d, printed %q, %q", test.port, status, &out, &errs)
		}
	}
}

func TestDiff(t *testing.T) {
	t.Parallel()
	var before, out, errs bytes.Buffer
	if status := run(t.Context(), []string{"-json"}, published, source{}, &before, &errs); status != 0 {
		t.Fatal(&errs)
	}
	file := filepath.Join(t.TempDir(), "before.json")
	if err := os.WriteFile(file, before.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if status := run(t.Context(), []string{"-diff", file}, published, source{}, &out, &errs); status != 0 || out.Len() > 0 {
		t.Errorf("nothing has changed, and it ended with %d, printed %s, %s", status, &out, &errs)
	}
	later := func(ctx context.Context) (*topology.Snapshot, error) {
		s, err := published(ctx)
		s.Namespaces[0].Ports = nil
		return s, err
	}
	const want = "- host port :8080-8089 of table inet boxwire  :8080-8089 → 10.88.0.2:8080 (web)\n"
	if status := run(t.Context(), []string{"-diff", file}, later, source{}, &out, &errs); status != 0 || out.String() != want {
		t.Errorf("it ended with %d, printed %q, %s", status, &out, &errs)
	}
	for content, says := range map[string]string{"": "not what -json writes", "{": "not what -json writes", "[]": "not what -json writes"} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		errs.Reset()
		if status := run(t.Context(), []string{"-diff", file}, published, source{}, &out, &errs); status != 1 || !strings.Contains(errs.String(), says) {
			t.Errorf("the file has %q, and it ended with %d, printed %s", content, status, &errs)
		}
	}
	if _, err := readFile(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}
