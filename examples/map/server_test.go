package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/topology"
)

// A stage is a machine that a test makes up, and the server that shows it.
type stage struct {
	*server
	base string // "http://127.0.0.1:NUMBER"
	next chan<- *topology.Snapshot
	done <-chan struct{} // the server has taken in the next one
	fail chan<- error
}

// newStage serves a page on a free port until the test ends.
func newStage(t *testing.T, first *topology.Snapshot, with func(*server)) *stage {
	t.Helper()
	tcp, err := new(net.ListenConfig).Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := smallBuffers{tcp}
	next, done, fail := make(chan *topology.Snapshot), make(chan struct{}), make(chan error)
	s, err := newServer(source{
		watch: func(ctx context.Context) iter.Seq2[*topology.Snapshot, error] {
			return func(yield func(*topology.Snapshot, error) bool) {
				for {
					select {
					case s := <-next:
						if !yield(s, nil) {
							return
						}
						select {
						case done <- struct{}{}:
						case <-ctx.Done():
							return
						}
					case err := <-fail:
						yield(nil, err)
						return
					case <-ctx.Done():
						return
					}
				}
			}
		},
		count: func(_ context.Context, _ *topology.Namespace, links []int) (all []counter, err error) {
			for _, i := range links {
				all = append(all, counter{i, 1000, 2000})
			}
			return all, nil
		},
	}, l.Addr())
	if err != nil {
		t.Fatal(err)
	}
	if with != nil {
		with(s)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.run(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the server ended with %v", err)
		}
	})
	st := &stage{server: s, base: "http://" + l.Addr().String(), next: next, done: done, fail: fail}
	if first != nil {
		st.show(first)
	}
	return st
}

// show changes the machine, and waits till the server has taken that in.
func (s *stage) show(to *topology.Snapshot) {
	s.next <- to
	<-s.done
}

// smallBuffers is a listener whose connections keep little of what is not read.
type smallBuffers struct{ net.Listener }

func (l smallBuffers) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		err = c.(*net.TCPConn).SetWriteBuffer(1)
	}
	return c, err
}

// get asks for a path.
func (s *stage) get(t *testing.T, path string, change func(*http.Request)) (status int, header http.Header, body string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.base+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(r)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(b)
}

// A reading is an open page of a test.
type reading struct {
	t  *testing.T
	sc *bufio.Scanner
	id string // of the last event
}

// open opens a page that follows the machine.
func (s *stage) open(t *testing.T, query, last string) *reading {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.base+"/events"+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	if last != "" {
		r.Header.Set("Last-Event-ID", last)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	if ct := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusOK || ct != "text/event-stream" {
		t.Fatalf("the events are %s, %q", resp.Status, ct)
	}
	return newReading(t, resp.Body)
}

func newReading(t *testing.T, body io.Reader) *reading {
	sc := bufio.NewScanner(body)
	sc.Buffer(nil, 64<<20)
	return &reading{t: t, sc: sc}
}

// next reads an event.
func (r *reading) next() (event string, m message) {
	r.t.Helper()
	for r.sc.Scan() {
		field, value, _ := strings.Cut(r.sc.Text(), ": ")
		switch field {
		case "event":
			event = value
		case "id":
			r.id = value
		case "data":
			if err := json.Unmarshal([]byte(value), &m); err != nil {
				r.t.Fatal(err)
			}
		case "":
			return event, m
		}
	}
	r.t.Fatalf("the events end: %v", r.sc.Err())
	return "", m
}

// want reads events until one is of the kind.
func (r *reading) want(kind string) message {
	r.t.Helper()
	for {
		if event, m := r.next(); event == kind {
			return m
		}
	}
}

// boxes is a host with a bridge and boxes of the names.
func boxes(names ...string) *topology.Snapshot {
	host := &topology.Namespace{Inode: 1, Own: true, Links: []*topology.Link{
		{Index: 1, Name: "lo", Up: true, Running: true},
		{Index: 2, Name: "br0", Kind: "bridge", Up: true, Running: true, Addrs: []netip.Prefix{netip.MustParsePrefix("10.88.0.1/16")}},
	}}
	s := &topology.Snapshot{Namespaces: []*topology.Namespace{host}}
	for i, name := range names {
		inode, index := uint64(100+i), 10+i
		host.Links = append(host.Links, &topology.Link{Index: index, Name: fmt.Sprint("v", i), Kind: "veth", Up: true, Running: true, Master: "br0",
			Peer: &topology.End{Inode: inode, Link: "eth0", Index: 2}})
		s.Namespaces = append(s.Namespaces, &topology.Namespace{
			Inode: inode, Names: []string{"/run/netns/" + name}, Processes: []topology.Process{{Pid: 1000 + i, Comm: "server"}},
			Links: []*topology.Link{{Index: 2, Name: "eth0", Kind: "veth", Up: true, Running: true,
				Addrs: []netip.Prefix{netip.PrefixFrom(addr(i), 16)}, Peer: &topology.End{Inode: 1, Link: fmt.Sprint("v", i), Index: index}}},
			Listeners: []topology.Listener{{Proto: "tcp", Addr: netip.MustParseAddrPort("0.0.0.0:80")}},
		})
	}
	return s
}

func addr(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 88, byte((i + 2) >> 8), byte(i + 2)}) }

// publish publishes a port for the box of a number.
func publish(s *topology.Snapshot, port uint16, box int, fault string) *topology.Snapshot {
	all := *s
	all.Namespaces = slices.Clone(s.Namespaces)
	host := *s.Namespaces[0]
	host.Ports = append(slices.Clone(host.Ports), topology.Port{
		Table: "inet boxwire", Proto: "tcp", Host: netip.AddrPortFrom(netip.IPv4Unspecified(), port), Box: netip.AddrPortFrom(addr(box), 80),
		Owner: "web", To: &topology.End{Inode: uint64(100 + box), Link: "eth0", Index: 2}, Fault: fault,
	})
	all.Namespaces[0] = &host
	return &all
}

func TestPageIsWhole(t *testing.T) {
	t.Parallel()
	s := newStage(t, boxes("web", "db"), nil)
	status, h, body := s.get(t, "/", nil)
	if status != http.StatusOK || h.Get("Content-Type") != "text/html; charset=utf-8" || h.Get("X-Content-Type-Options") != "nosniff" ||
		h.Get("Referrer-Policy") != "no-referrer" || h.Get("Cache-Control") != "no-store" {
		t.Errorf("the page is %d, %v", status, h)
	}
	policy := h.Get("Content-Security-Policy")
	for _, part := range []string{"default-src 'none'", "connect-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"} {
		if !strings.Contains(policy, part) {
			t.Errorf("the policy %q has no %s", policy, part)
		}
	}
	if strings.Contains(policy, "unsafe") {
		t.Errorf("the policy is %q", policy)
	}
	// What stands between the tags is what the policy allows by its hash.
	for _, tag := range []string{"script", "style"} {
		_, rest, _ := strings.Cut(body, "<"+tag+">")
		text, _, ok := strings.Cut(rest, "</"+tag+">")
		if !ok || len(text) < 100 || !strings.Contains(policy, tag+"-src "+hash(text)+";") {
			t.Errorf("the policy does not allow the %s of %d bytes: %q", tag, len(text), policy)
		}
	}
	for _, outside := range []string{"src=\"http", "href=\"http", "url(", "@import", "//cdn"} {
		if strings.Contains(body, outside) {
			t.Errorf("the page has %s", outside)
		}
	}
}

func TestOtherPaths(t *testing.T) {
	t.Parallel()
	s := newStage(t, publish(boxes("web", "db"), 8080, 0, ""), nil)
	for path, want := range map[string]struct {
		status int
		kind   string
		has    string
	}{
		"/map.svg":               {200, "image/svg+xml", "<svg "},
		"/snapshot.json":         {200, "application/json", `"inode": 100`},
		"/details?ns=100":        {200, "application/json", `"ip -n web addr"`},
		"/details?ns=999":        {200, "application/json", `"gone":true`},
		"/details?ns=x":          {400, "text/plain; charset=utf-8", "inode"},
		"/details?ns=100x":       {400, "text/plain; charset=utf-8", "inode"},
		"/details":               {400, "text/plain; charset=utf-8", "inode"},
		"/details?port=x":        {200, "application/json", `"gone":true`},
		"/rates?ns=999&links=2":  {200, "application/json", `"trouble":"it is gone"`},
		"/rates?ns=100&links=2":  {200, "application/json", `"rx":1000`},
		"/rates?ns=100&links=99": {200, "application/json", `"links":null`},
		"/rates?ns=100":          {400, "text/plain; charset=utf-8", "indices"},
		"/rates?ns=100&links=" + strings.Repeat("2,", 100) + "2": {400, "text/plain; charset=utf-8", "indices"},
		"/search?q=web":                            {200, "application/json", `"ns-100"`},
		"/search?q=" + strings.Repeat("x", 201):    {400, "text/plain; charset=utf-8", "200"},
		"/nothing":                                 {404, "text/plain; charset=utf-8", "404"},
		"/page/page.html":                          {404, "text/plain; charset=utf-8", "404"},
		"/..%2f..%2fetc%2fpasswd":                  {404, "text/plain; charset=utf-8", "404"},
		"/map.svg?unfold=x&unfold=%3C%2Fscript%3E": {200, "image/svg+xml", "<svg "},
	} {
		status, h, body := s.get(t, path, nil)
		if status != want.status || h.Get("Content-Type") != want.kind || !strings.Contains(body, want.has) || h.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s is %d, %v, %.300s", path, status, h, body)
		}
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	s := newStage(t, boxes("web"), nil)
	port := s.base[strings.LastIndex(s.base, ":"):]
	for name, x := range map[string]struct {
		change func(*http.Request)
		status int
	}{
		"as it is":               {func(*http.Request) {}, 200},
		"localhost":              {func(r *http.Request) { r.Host = "localhost" + port }, 200},
		"LOCALHOST":              {func(r *http.Request) { r.Host = "LOCALHOST" + port }, 200},
		"a name":                 {func(r *http.Request) { r.Host = "rebound.example" + port }, 403},
		"a name that ends so":    {func(r *http.Request) { r.Host = "localhost" + port + ".example" }, 403},
		"another port":           {func(r *http.Request) { r.Host = "127.0.0.1:1" }, 403},
		"no port":                {func(r *http.Request) { r.Host = "127.0.0.1" }, 403},
		"another address":        {func(r *http.Request) { r.Host = "127.0.0.2" + port }, 403},
		"another site asks":      {func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") }, 403},
		"another port's page":    {func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "same-site") }, 403},
		"the page asks":          {func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "same-origin") }, 200},
		"the user asks":          {func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "none") }, 200},
		"another origin":         {func(r *http.Request) { r.Header.Set("Origin", "http://example.com") }, 403},
		"the null origin":        {func(r *http.Request) { r.Header.Set("Origin", "null") }, 403},
		"https":                  {func(r *http.Request) { r.Header.Set("Origin", "https://127.0.0.1"+port) }, 403},
		"its own origin":         {func(r *http.Request) { r.Header.Set("Origin", s.base) }, 200},
		"POST":                   {func(r *http.Request) { r.Method = "POST" }, 405},
		"PUT":                    {func(r *http.Request) { r.Method = "PUT" }, 405},
		"DELETE":                 {func(r *http.Request) { r.Method = "DELETE" }, 405},
		"OPTIONS":                {func(r *http.Request) { r.Method = "OPTIONS" }, 405},
		"TRACE":                  {func(r *http.Request) { r.Method = "TRACE" }, 405},
		"HEAD":                   {func(r *http.Request) { r.Method = "HEAD" }, 200},
		"a method of no meaning": {func(r *http.Request) { r.Method = "SCRIPT" }, 405},
	} {
		for _, path := range []string{"/", "/snapshot.json", "/map.svg", "/search?q=x"} {
			status, h, body := s.get(t, path, x.change)
			if status != x.status {
				t.Errorf("%s: %s is %d, want %d", name, path, status, x.status)
			}
			if status != 200 && (h.Get("Content-Type") != "text/plain; charset=utf-8" || !strings.HasPrefix(body, "map: ") || strings.Contains(body, "web")) {
				t.Errorf("%s: %s is %v, %s", name, path, h, body)
			}
			if h.Get("Access-Control-Allow-Origin") != "" {
				t.Errorf("%s: %s is for other origins: %v", name, path, h)
			}
		}
	}
	if status, h, _ := s.get(t, "/events", func(r *http.Request) { r.Host = "rebound.example" + port }); status != 403 {
		t.Errorf("the events for another Host are %d, %v", status, h)
	}
}

// A name is data in every answer, whatever its characters are.
func TestOddNames(t *testing.T) {
	t.Parallel()
	for _, odd := range []string{"</script><script>alert(1)</script>", "\"><img src=x onerror=alert(1)>", "a\nb: c\n\nevent: whole\ndata: {}", "$(reboot)", "it's", "-rf", "\x1b[31m", "\xff\xfe", "\u202etfel"} {
		s := newStage(t, publish(boxes(odd), 8080, 0, odd), nil)
		page := s.open(t, "", "")
		event, m := page.next()
		if event != "whole" || len(m.Parts) < 2 {
			t.Fatalf("%q: %s, %+v", odd, event, m)
		}
		for _, p := range m.Parts {
			if d, err := split("<svg>" + p[1] + "</svg>"); err != nil || len(d.parts) != 1 || strings.Contains(p[1], "<script") || strings.Contains(p[1], "<img") {
				t.Errorf("%q: the part %s is %s, %v", odd, p[0], p[1], err)
			}
		}
		_, _, body := s.get(t, "/details?ns=100", nil)
		if !json.Valid([]byte(body)) || strings.Contains(body, "<") {
			t.Errorf("%q: the details are %s", odd, body)
		}
		var d details
		if err := json.Unmarshal([]byte(body), &d); err != nil || len(d.Commands) == 0 {
			t.Errorf("%q: %+v, %v", odd, d, err)
		}
		for _, c := range d.Commands {
			if strings.ContainsAny(c.Line, "\n\x1b\u202e") {
				t.Errorf("%q: the command is %q", odd, c.Line)
			}
		}
	}
}

func TestCommands(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		n    topology.Namespace
		want string
	}{
		{topology.Namespace{Own: true}, "ip addr"},
		{topology.Namespace{Names: []string{"/run/netns/web"}}, "ip -n web addr"},
		{topology.Namespace{Names: []string{"/run/docker/netns/1"}, Processes: []topology.Process{{Pid: 7}}}, "nsenter --net=/run/docker/netns/1 ip addr"},
		{topology.Namespace{Processes: []topology.Process{{Pid: 7}}}, "nsenter --net=/proc/7/ns/net ip addr"},
		{topology.Namespace{Processes: []topology.Process{{Pid: 7}}, Networks: []topology.Network{{Table: "inet boxwire"}}}, "nsenter --net=/proc/7/ns/net nft list table inet boxwire"},
	} {
		if all := namespaceCommands(&x.n); !slices.ContainsFunc(all, func(c command) bool { return c.Line == x.want }) {
			t.Errorf("no %q in %v", x.want, all)
		}
	}
	if all := namespaceCommands(new(topology.Namespace)); len(all) != 0 {
		t.Errorf("nothing leads there: %v", all)
	}
}

// What the page says to type is what -why understands.
func TestWhyOfThePage(t *testing.T) {
	t.Parallel()
	for _, p := range []topology.Port{
		{Proto: "tcp", Host: netip.MustParseAddrPort("0.0.0.0:8080")}, {Proto: "udp", Host: netip.MustParseAddrPort("[::]:53")},
		{Proto: "tcp", Host: netip.MustParseAddrPort("[2001:db8::1]:80")}, {Proto: "udp", Host: netip.MustParseAddrPort("203.0.113.1:53")},
	} {
		text := wantedOf(&p)
		if w, err := parseWanted(text); err != nil || !w.is(&p) {
			t.Errorf("%+v is %s: %+v, %v", p, text, w, err)
		}
	}
}

func TestSearch(t *testing.T) {
	t.Parallel()
	names := make([]string, 300)
	for i := range names {
		names[i] = fmt.Sprintf("box%03d", i)
	}
	s := newStage(t, publish(boxes(names...), 8080, 7, ""), nil)
	for q, want := range map[string]string{
		"box007":      "ns-100+7",
		"BOX007":      "ns-100+7",
		"10.88.0.9":   "ns-100+7", // before 10.88.0.90
		"1299":        "ns-100+299",
		"server 1299": "ns-100+299",
		"8080":        "port-",
		"808":         "port-",
		"100":         "ns-100+0", // the inode number, and no part of one
		"web 8080":    "port-",
		"nobody":      "",
		"":            "",
		"  ":          "",
	} {
		_, _, body := s.get(t, "/search?q="+strings.ReplaceAll(q, " ", "%20"), nil)
		var found struct {
			Count   int
			Matches []match
		}
		if err := json.Unmarshal([]byte(body), &found); err != nil {
			t.Fatal(err)
		}
		if want == "" {
			if found.Count != 0 || found.Matches == nil {
				t.Errorf("%q finds %s", q, body)
			}
			continue
		}
		var base, plus int
		if n, _ := fmt.Sscanf(want, "ns-%d+%d", &base, &plus); n == 2 {
			want = fmt.Sprint("ns-", base+plus)
		}
		if len(found.Matches) == 0 || !strings.HasPrefix(found.Matches[0].Key, want) {
			t.Errorf("%q finds %.300s, want %s", q, body, want)
		} else if folded := plus > 30; (found.Matches[0].Group != "") != folded {
			t.Errorf("%q finds %+v", q, found.Matches[0])
		}
	}
}

func TestFailedRead(t *testing.T) {
	t.Parallel()
	s := newStage(t, boxes("web"), nil)
	page := s.open(t, "", "")
	page.want("whole")
	s.fail <- errors.New("the table is full")
	if m := page.want("change"); m.Trouble != "the table is full" || len(m.News) != 1 || len(m.Put)+len(m.Gone) != 0 {
		t.Errorf("after the failure: %+v", m)
	}
	s.show(boxes("web")) // it is tried again
	if m := page.want("change"); m.Trouble != "" {
		t.Errorf("after the next read: %+v", m)
	}
}

func TestParts(t *testing.T) {
	t.Parallel()
	old, err := split("<svg width=\"1\" height=\"2\"><title>&lt;3</title><style>a{}</style><g id=\"a\"/><g id=\"b\"><text>1</text></g><path id=\"c\"/><g id=\"d\"/></svg>\n")
	if err != nil || old.title != "<3" || old.style != "a{}" || old.width != "1" || len(old.parts) != 4 || old.parts[1].text != `<g id="b"><text>1</text></g>` {
		t.Fatalf("%+v, %v", old, err)
	}
	now, err := split("<svg><g id=\"x\"/><g id=\"a\"/><g id=\"b\"><text>2</text></g><g id=\"d\"/><path id=\"e\"/></svg>")
	if err != nil {
		t.Fatal(err)
	}
	c := now.since(old)
	if want := [][3]string{{"x", "", `<g id="x"/>`}, {"b", "a", `<g id="b"><text>2</text></g>`}, {"e", "d", `<path id="e"/>`}}; !slices.Equal(c.put, want) || !slices.Equal(c.gone, []string{"c"}) {
		t.Errorf("%q, gone %q", c.put, c.gone)
	}
	if turned, _ := split(`<svg><g id="d"/><g id="a"/></svg>`); !slices.Equal(turned.since(old).put, [][3]string{{"a", "d", `<g id="a"/>`}}) {
		t.Errorf("turned: %q", turned.since(old).put)
	}
	if _, err := split("<svg><g>"); err == nil {
		t.Error("half a picture is accepted")
	}
	if twice, _ := split(`<svg><g id="a"/><g id="a"/><path/></svg>`); len(twice.at) != 3 || twice.parts[1].key != "a~2" || twice.parts[2].key != "path" {
		t.Errorf("%+v", twice)
	}
}
