package topology

import (
	"encoding/xml"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"testing"
)

// pod is a machine of a host with a bridge, a pod and a box that is called oddly.
func pod(odd string) *Snapshot {
	p := netip.MustParsePrefix
	s := &Snapshot{Namespaces: []*Namespace{
		{Inode: 1, Own: true, Links: []*Link{
			{Index: 1, Name: "lo", Up: true, Running: true, Addrs: []netip.Prefix{p("127.0.0.1/8")}},
			{Index: 2, Name: "eth0", Up: true, Running: true, Addrs: []netip.Prefix{p("203.0.113.1/24")}},
			{Index: 3, Name: "br0", Kind: "bridge", Up: true, Running: true, Addrs: []netip.Prefix{p("10.88.0.1/16"), p("fe80::1/64")}},
			{Index: 4, Name: "vpod", Kind: "veth", Up: true, Running: true, Master: "br0", Peer: &End{Inode: 2, Link: "eth0", Index: 2}},
			{Index: 5, Name: "vodd", Kind: "veth", Up: true, Master: "br0", Peer: &End{Inode: 3, Link: "eth0", Index: 2}},
		}, Routes: []Route{{Dst: p("0.0.0.0/0"), Via: netip.MustParseAddr("203.0.113.254"), Dev: "eth0"}}},
		{Inode: 2, Names: []string{"/run/netns/pod"}, Processes: []Process{{10, "web"}, {11, "log"}}, Links: []*Link{
			{Index: 2, Name: "eth0", Kind: "veth", Up: true, Running: true, Addrs: []netip.Prefix{p("10.88.0.2/16")}, Peer: &End{Inode: 1, Link: "vpod", Index: 4}},
		}, Listeners: []Listener{
			{"tcp", netip.MustParseAddrPort("0.0.0.0:80")}, {"tcp", netip.MustParseAddrPort("[::]:80")}, {"udp", netip.MustParseAddrPort("127.0.0.1:53")},
		}},
		{Inode: 3, Names: []string{"/run/netns/" + odd}, Links: []*Link{
			{Index: 2, Name: "eth0", Kind: "veth", Peer: &End{Inode: 1, Link: "vodd", Index: 5}},
		}},
	}}
	s.sort()
	return s
}

func written(t *testing.T, write func(io.Writer, *Snapshot) error, s *Snapshot) string {
	t.Helper()
	var b strings.Builder
	if err := write(&b, s); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestTree(t *testing.T) {
	t.Parallel()
	const want = `host
  lo
  eth0  203.0.113.1/24
  br0 (bridge)  10.88.0.1/16
    vpod (veth)  --- pod eth0  10.88.0.2/16
    vodd (veth, no carrier)  --- zzz eth0
  default  via 203.0.113.254 on eth0

pod  web 10, log 11
  eth0 (veth)  10.88.0.2/16  --- host vpod
  listens on  tcp :80

zzz
  eth0 (veth, down)  --- host vodd
`
	if got := written(t, WriteTree, pod("zzz")); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestGraphs(t *testing.T) {
	t.Parallel()
	const dot = `graph machine {
  rankdir=LR
  node [shape=box]
  subgraph cluster_1 {
    label="host"
    l1_2 [label="eth0\n203.0.113.1/24"]
    l1_3 [label="br0\nbridge\n10.88.0.1/16"]
    l1_4 [label="vpod\nveth"]
    l1_5 [label="vodd\nveth, no carrier"]
  }
  subgraph cluster_2 {
    label="pod\nweb 10, log 11\ntcp :80"
    l2_2 [label="eth0\nveth\n10.88.0.2/16"]
  }
  subgraph cluster_3 {
    label="zzz"
    l3_2 [label="eth0\nveth, down"]
  }
  l1_3 -- l1_4
  l1_4 -- l2_2
  l1_3 -- l1_5
  l1_5 -- l3_2
}
`
	if got := written(t, WriteDOT, pod("zzz")); got != dot {
		t.Errorf("got\n%s\nwant\n%s", got, dot)
	}
	got := written(t, WriteMermaid, pod("zzz"))
	for _, part := range []string{"flowchart LR\n", `subgraph n2["pod<br/>web 10, log 11<br/>tcp :80"]`, "l1_4 --- l2_2\n"} {
		if !strings.Contains(got, part) {
			t.Errorf("no %q in\n%s", part, got)
		}
	}
}

// A name is harmless in every form, whatever its characters are.
func TestOddNames(t *testing.T) {
	t.Parallel()
	for _, odd := range []string{"</script><script>alert(1)</script>", "\"]; x [label=\"", "a\x1b[31mred", "\xff\xfe", "&amp;#quot;`", "\u202eright"} {
		s := pod(odd)
		s.Notes = []string{odd}
		s.Namespaces[0].Links[2].Name, s.Namespaces[0].Links[3].Master, s.Namespaces[0].Links[4].Master = odd, odd, odd
		s.Namespaces[0].Ports = []Port{{Table: "ip " + odd, Proto: "tcp", Owner: odd, If: odd, Fault: odd, To: &End{2, "eth0", 2}}}
		n := s.Namespace(2)
		n.Processes[1].Comm, n.Notes = odd, []string{odd}
		way := func(w io.Writer, s *Snapshot) error { return s.WriteWay(w, s.Namespaces[0], &s.Namespaces[0].Ports[0]) }
		change := func(w io.Writer, s *Snapshot) error { return WriteDiff(w, pod("a"), s) }
		for name, write := range map[string]func(io.Writer, *Snapshot) error{"way": way, "diff": change, "tree": WriteTree, "SVG": WriteSVG, "DOT": WriteDOT, "Mermaid": WriteMermaid} {
			got := written(t, write, s)
			if strings.ContainsAny(got, "\x1b\u202e") || !strings.Contains(got, "pod") {
				t.Errorf("%s of %q:\n%s", name, odd, got)
			}
			switch name {
			case "SVG":
				wellFormed(t, got)
				fallthrough
			case "Mermaid":
				if strings.Contains(got, "<script") {
					t.Errorf("%s of %q:\n%s", name, odd, got)
				}
			case "DOT":
				if strings.Count(got, `x [label=""`) > 0 {
					t.Errorf("%s of %q:\n%s", name, odd, got)
				}
			}
		}
	}
}

// Of many namespaces the first ones are drawn, and the rest is a count.
func TestManyNamespacesAreFolded(t *testing.T) {
	t.Parallel()
	s := &Snapshot{Namespaces: []*Namespace{{Inode: 1, Own: true}}}
	for i := range 300 {
		s.Namespaces[0].Links = append(s.Namespaces[0].Links, &Link{Index: 2 + i, Name: fmt.Sprint("v", i), Kind: "veth", Peer: &End{Inode: uint64(2 + i), Link: "eth0", Index: 2}})
		s.Namespaces = append(s.Namespaces, &Namespace{Inode: uint64(2 + i), Names: []string{fmt.Sprint("/run/netns/box", i)}, Links: []*Link{
			{Index: 2, Name: "eth0", Kind: "veth", Peer: &End{Inode: 1, Link: fmt.Sprint("v", i), Index: 2 + i}},
		}})
	}
	got := written(t, WriteSVG, s)
	wellFormed(t, got)
	if n := strings.Count(got, ">box"); !strings.Contains(got, "+ 270 more") || n < 30 || strings.Contains(got, ">box31,") {
		t.Errorf("%d boxes in\n%s", n, got[:2000])
	}
}

// wellFormed checks that a text is one XML document.
func wellFormed(t *testing.T, text string) {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(text))
	for {
		if _, err := d.Token(); err == io.EOF {
			return
		} else if err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
	}
}
