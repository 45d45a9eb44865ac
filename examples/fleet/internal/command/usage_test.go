//go:build linux

package command

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A wrong command line is refused with one line that names the flag, with status 2, before anything is made.
func TestWrongCommandLines(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	state := filepath.Join(dir, "state")
	long := strings.Repeat("n", 300)
	for _, test := range []struct{ name, args, want string }{
		{"no name", "agent", "-name is missing"},
		{"an empty name", "agent -name=", "-name is missing"},
		{"a name with white space", "agent -name=a_SP_b", "-name: name of a fleet"},
		{"a name with an escape", "agent -name=a\x1b[31mb", `-name: name of a fleet "a\x1b[31mb"`},
		{"a name with a slash", "agent -name a/b", "-name: name of a fleet"},
		{"a name of dots", "agent -name ..", "-name: name of a fleet"},
		{"a long name", "agent -name " + long, "-name: name of a fleet"},
		{"a node with white space", "agent -name x -node a_SP_b", "-node: name of a node"},
		{"a long node", "agent -name x -node " + long, "-node: name of a node"},
		{"an argument", "agent -name x y\x1b", `agent takes flags alone, not ["y\x1b"]`},
		{"an unknown flag", "agent -name x -nonsense", "flag provided but not defined: -nonsense"},
		{"an unknown flag with an escape", "agent -name x -a\x1b[2Jb", `not defined: -a\x1b[2Jb`},
		{"a flag without its value", "agent -name x -vni", "flag needs an argument: -vni"},
		{"a negative port", "agent -name x -port -1", `invalid value "-1" for flag -port`},
		{"port 0", "agent -name x -port 0", "port 0: want 1 to 65535"},
		{"port 65536", "agent -name x -port 65536", "-port 65536: want 1 to 65535"},
		{"port 2^32+1", "agent -name x -port 4294967297", "-port 4294967297: want 1 to 65535"},
		{"port 2^64", "agent -name x -port 18446744073709551616", `invalid value "18446744073709551616" for flag -port`},
		{"vni 0", "agent -name x -vni 0", "vni 0: want 1 to 16777215"},
		{"vni 2^24", "agent -name x -vni 16777216", "-vni 16777216: want 1 to 16777215"},
		{"vni 2^32+1", "agent -name x -vni 4294967297", "-vni 4294967297"},
		{"protocol 0", "agent -name x -protocol 0", "-protocol 0: want 5 to 255"},
		{"protocol 256", "agent -name x -protocol 256", "-protocol 256: want 5 to 255"},
		{"the protocol of static routes", "agent -name x -protocol 4", "-protocol 4: it marks the routes of others (static)"},
		{"the protocol of DHCP", "agent -name x -protocol 16", "-protocol 16: it marks the routes of others (dhcp)"},
		{"an empty link", "agent -name x -link=", "-link: the link's name is empty"},
		{"a link with a slash", "agent -name x -link a/b", "-link: the link's name"},
		{"a long link", "agent -name x -link 1234567890123456", "-link: the link's name"},
		{"an empty way", "agent -name x -via=", "-via: the link's name is empty"},
		{"size4 too small", "agent -name x -size4 15", "pool 10.100.0.0/16: size4, a node's prefix, of length 15: want 16 to 29"},
		{"size4 too large", "agent -name x -size4 30", "size4, a node's prefix, of length 30"},
		{"size4 negative", "agent -name x -size4 -1", "size4, a node's prefix, of length -1"},
		{"size4 2^32", "agent -name x -size4 4294967320", "size4, a node's prefix, of length 4294967320"},
		{"size4 in words", "agent -name x -size4 many", `invalid value "many" for flag -size4`},
		{"size6 too small", "agent -name x -size6 47", "pool fd99::/48: size6, a node's prefix, of length 47"},
		{"size6 too large", "agent -name x -size6 121", "size6, a node's prefix, of length 121"},
		{"both sizes", "agent -name x -size4 1 -size6 1", "size4, a node's prefix, of length 1: want 16 to 29; pool fd99::/48: size6, a node's prefix, of length 1"},
		{"an empty pool", "agent -name x -pool=", `for flag -pool`},
		{"a pool without a length", "agent -name x -pool 10.0.0.0", `invalid value "10.0.0.0" for flag -pool`},
		{"a pool with host bits", "agent -name x -pool 10.1.2.3/16", "pool 10.1.2.3/16: want a prefix without host bits"},
		{"a pool of loopback", "agent -name x -pool 127.0.0.0/8", "pool 127.0.0.0/8"},
		{"a pool of everything", "agent -name x -pool 0.0.0.0/0", "pool 0.0.0.0/0"},
		{"pools that overlap", "agent -name x -pool 10.1.0.0/16,10.1.2.0/24", "pools 10.1.0.0/16 and 10.1.2.0/24 overlap"},
		{"an unknown mode", "agent -name x -mode teleport", `mode "teleport": want tunnel, direct, auto or wireguard`},
		{"hold negative", "agent -name x -hold -1s", "hold -1s: want 0s to 24h"},
		{"hold without a unit", "agent -name x -hold 60", `for flag -hold`},
		{"ttl 0", "agent -name x -ttl 0s", "ttl 0s: want whole seconds, 1s to 1h"},
		{"ttl of a day", "agent -name x -ttl 24h", "ttl 24h0m0s: want whole seconds, 1s to 1h"},
		{"an empty state", "agent -name x -state=", "-state is empty"},
		{"an empty store", "agent -name x -store=", "-store is empty"},
		{"metrics without a port", "agent -name x -metrics 127.0.0.1", `-metrics "127.0.0.1": want ADDR:PORT`},
		{"metrics on a port too large", "agent -name x -metrics 127.0.0.1:65536", `-metrics "127.0.0.1:65536": want ADDR:PORT`},
		{"listen without embed", "agent -name x -store http://127.0.0.1:1 -listen http://127.0.0.1:2", "-listen is of the store that -store embed runs"},
		{"listen for everybody without TLS", "agent -name x -listen http://0.0.0.0:2379", "-listen: listen on \"http://0.0.0.0:2379\": http beyond this machine can be read and changed by others: want https, or -insecure"},
		{"listen for everybody without a CA", "agent -name x -listen https://0.0.0.0:2379 -cert a -key b", "-listen: listen with https but without a CA"},
		{"listen without a port", "agent -name x -listen http://127.0.0.1", "-listen: listen on"},
		{"listen on garbage", "agent -name x -listen ::", "-listen: listen on"},
		{"a store beyond without TLS", "agent -name x -store http://192.0.2.1:2379", "-store: endpoint \"http://192.0.2.1:2379\": http beyond this machine can be read and changed by others: want https, or -insecure"},
		{"a store by a name without TLS", "agent -name x -store http://etcd:2379", "want https, or -insecure"},
		{"a store with and without TLS", "agent -name x -store https://a:1,http://127.0.0.1:1", "some with TLS and some without"},
		{"a store of garbage", "agent -name x -store a\x1b", `-store: endpoint "a\x1b"`},
		{"certificates without TLS", "agent -name x -store http://127.0.0.1:1 -ca /ca.pem", "no endpoint is https"},
		{"certificates of nothing", "agent -name x -ca /ca.pem", "-ca, -cert and -key are for other machines"},

		{"ls with an argument", "ls x", "ls takes flags alone"},
		{"ls with an unknown flag", "ls -x", "not defined: -x"},
		{"explain nobody", "explain", "want one NODE"},
		{"explain two", "explain a b", "want one NODE"},
		{"forget nobody", "forget -name x -store http://127.0.0.1:1", "want -name FLEET, -store URLS and one NODE"},
		{"forget without a store", "forget -name x a", "want -name FLEET, -store URLS and one NODE"},
		{"forget without a fleet", "forget -store http://127.0.0.1:1 a", "want -name FLEET, -store URLS and one NODE"},
		{"forget in a fleet with a slash", "forget -name a/b -store http://127.0.0.1:1 a", `name of a fleet "a/b"`},
		{"forget by a store beyond", "forget -name x -store http://192.0.2.1:1 a", "want https, or -insecure"},
		{"forget by embed", "forget -name x -store embed a", "-store embed"},
	} {
		args := strings.Fields(test.args)
		for i := range args {
			args[i] = strings.ReplaceAll(args[i], "_SP_", " ")
		}
		if args[0] == "agent" && !strings.Contains(test.args, "-state") {
			args = append([]string{"agent", "-state", state}, args[1:]...)
		}
		var stderr bytes.Buffer
		code := run(args, new(bytes.Buffer), &stderr)
		wantError(t, test.name, code, 2, stderr.String(), test.want)
	}
	if entries, err := os.ReadDir(dir); len(entries) > 0 || err != nil {
		t.Errorf("wrong command lines have made %v, %v", entries, err)
	}
}

// Help goes to standard output, with status 0, and names every flag.
func TestHelp(t *testing.T) {
	t.Parallel()
	for args, want := range map[string][]string{
		"-h":         {"fleet agent", "fleet ls", "fleet explain", "fleet forget", "fleet box"},
		"help":       {"fleet agent"},
		"agent -h":   {"usage: fleet agent -name FLEET", "-size6 LENGTH", "-store URLS", "-listen URL", "-via LINK", "-hold TIME", "-key FILE"},
		"ls --help":  {"usage: fleet ls", "-json", "-socket PATH"},
		"explain -h": {"usage: fleet explain", "-socket PATH", "exit status is 1"},
		"forget -h":  {"usage: fleet forget -name FLEET -store URLS", "-insecure", "-ca FILE"},
	} {
		var stdout, stderr bytes.Buffer
		code := run(strings.Fields(args), &stdout, &stderr)
		if code != 0 || stderr.Len() > 0 {
			t.Errorf("fleet %s: status %d, %q", args, code, stderr.String())
		}
		for _, text := range want {
			if !strings.Contains(stdout.String(), text) {
				t.Errorf("fleet %s does not say %q:\n%s", args, text, stdout.String())
			}
		}
	}
}

func TestNoVerb(t *testing.T) {
	t.Parallel()
	var stdout, stderr bytes.Buffer
	if code := run(nil, &stdout, &stderr); code != 2 || !strings.HasPrefix(stderr.String(), "usage: ") || stdout.Len() > 0 {
		t.Errorf("status %d, %q, %q", code, stdout.String(), stderr.String())
	}
	for verb, want := range map[string]string{"lost": `no verb "lost"`, "\x1b[2J": `no verb "\x1b[2J"`, strings.Repeat("x", 300): "no verb"} {
		stderr.Reset()
		wantError(t, verb, run([]string{verb}, &stdout, &stderr), 2, stderr.String(), want, "fleet -h")
	}
}
