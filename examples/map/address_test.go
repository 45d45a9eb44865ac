package main

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/topology"
)

func TestAddresses(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"127.0.0.1:8090": "127.0.0.1 8090", "localhost:0": "127.0.0.1 0", "[::1]:8090": "::1 8090", "127.1.2.3:1": "127.1.2.3 1",
		"[::ffff:127.0.0.1]:80": "127.0.0.1 80",
		"8090":                  "wants ADDRESS:PORT", "": "wants ADDRESS:PORT", "127.0.0.1": "wants ADDRESS:PORT", "127.0.0.1:": "a number", "127.0.0.1:http": "a number",
		"127.0.0.1:65536": "a number", "127.0.0.1:-1": "a number", "example.com:80": "no IP address", "127.1:80": "no IP address", "127.0.0.1 :80": "no IP address",
		":8090": "-expose", "0.0.0.0:8090": "-expose", "[::]:8090": "-expose", "192.0.2.1:8090": "-expose", "[2001:db8::1]:80": "-expose", "[fe80::1%eth0]:80": "-expose",
	} {
		a, err := parseAddress(text, false)
		if err != nil {
			if !errors.Is(err, errAddress) || !strings.Contains(err.Error(), want) {
				t.Errorf("%q: %v, want %q", text, err, want)
			}
			if _, err := parseAddress(text, true); (err == nil) != (want == "-expose") {
				t.Errorf("%q with -expose: %v", text, err)
			}
			continue
		}
		ip, port, _ := strings.Cut(want, " ")
		if a.ip.String() != ip || net.JoinHostPort("", port) != net.JoinHostPort("", itoa(a.port)) {
			t.Errorf("%q is %v", text, a)
		}
	}
}

func itoa(n uint16) string {
	_, port, _ := net.SplitHostPort((&net.TCPAddr{Port: int(n)}).String())
	return port
}

func TestHosts(t *testing.T) {
	t.Parallel()
	tcp := func(text string) *net.TCPAddr {
		a, err := net.ResolveTCPAddr("tcp", text)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	for _, x := range []struct {
		bound, reached string
		yes, no        string
	}{
		{"127.0.0.1:80", "127.0.0.1:80", "127.0.0.1 127.0.0.1:80 localhost localhost:80", "127.0.0.1:8090 [::1] ::1 127.0.0.1."},
		{"[::1]:80", "[::1]:80", "[::1] [::1]:80 localhost", "::1 127.0.0.1"},
		{"192.0.2.1:8090", "192.0.2.1:8090", "192.0.2.1:8090", "localhost:8090 192.0.2.1 127.0.0.1:8090 machine:8090"},
		{"0.0.0.0:8090", "192.0.2.1:8090", "192.0.2.1:8090 localhost:8090", "192.0.2.2:8090 machine:8090 0.0.0.0:8090 127.0.0.1:8090"},
		{"[::]:8090", "[::ffff:192.0.2.1]:8090", "192.0.2.1:8090", "[::]:8090 machine:8090"},
		{"[::]:8090", "[2001:db8::1]:8090", "[2001:db8::1]:8090", "[2001:db8::2]:8090"},
	} {
		h := hostsOf(tcp(x.bound))
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, net.Addr(tcp(x.reached))))
		for allowed, list := range map[bool]string{true: x.yes, false: x.no} {
			for host := range strings.FieldsSeq(list) {
				if r.Host = host; h.allows(r) != allowed {
					t.Errorf("on %s, reached at %s: the Host %s is allowed: %v", x.bound, x.reached, host, !allowed)
				}
			}
		}
	}
}

// quiet is a machine of which nothing is known.
func quiet() source {
	return source{watch: func(ctx context.Context) iter.Seq2[*topology.Snapshot, error] {
		return func(func(*topology.Snapshot, error) bool) { <-ctx.Done() }
	}}
}

func TestBadAddresses(t *testing.T) {
	t.Parallel()
	taken, err := new(net.ListenConfig).Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for args, want := range map[string]struct {
		status int
		words  string
	}{
		"-http " + taken.Addr().String():       {1, "address already in use; another program listens there"},
		"-http 192.0.2.1:0":                    {2, "-expose"},
		"-http 192.0.2.1:0 -expose":            {1, "no link of this machine has the address"},
		"-http :0":                             {2, "-expose"},
		"-http nonsense":                       {2, "ADDRESS:PORT"},
		"-http 127.0.0.1:0 -json":              {2, "one form"},
		"-http 127.0.0.1:0 -expose -svg x.svg": {2, "one form"},
		"-expose":                              {2, "one form"},
		"-expose -json":                        {2, "one form"},
	} {
		var out, errs bytes.Buffer
		if got := run(t.Context(), strings.Fields(args), machine, quiet(), &out, &errs); got != want.status || !strings.Contains(errs.String(), want.words) || out.Len() > 0 {
			t.Errorf("map %s ended with %d: %s%s", args, got, &out, &errs)
		}
	}
}
