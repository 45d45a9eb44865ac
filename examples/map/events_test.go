package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"
	"weak"

	"github.com/boxwire/boxwire/internal/topology"
)

// until waits until a condition holds.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for !holds() {
		select {
		case <-t.Context().Done():
			t.Fatalf("%s: %v", what, context.Cause(t.Context()))
		case <-time.After(time.Millisecond):
		}
	}
}

func TestChangesArePushed(t *testing.T) {
	t.Parallel()
	s := newStage(t, boxes("web"), nil)
	page := s.open(t, "", "")
	event, m := page.next()
	if event != "whole" || m.Counts.Namespaces != 2 || m.Counts.Links != 3 || m.Host == "" || m.Missed != 0 || m.Restarted {
		t.Fatalf("%s %+v", event, m)
	}
	shown := make(map[string]string)
	for _, p := range m.Parts {
		shown[p[0]] = p[1]
	}
	if shown["ns-100"] == "" || shown["ns-1"] == "" || shown["wire-1-10"] == "" {
		t.Fatalf("the picture is %+v", m.Parts)
	}
	apply := func(m message) {
		t.Helper()
		for _, key := range m.Gone {
			if shown[key] == "" {
				t.Errorf("%s is gone, and was not there", key)
			}
			delete(shown, key)
		}
		for _, p := range m.Put {
			if shown[p[0]] == p[2] {
				t.Errorf("%s is sent, and is as it was", p[0])
			}
			shown[p[0]] = p[2]
		}
	}
	for _, x := range []struct {
		s    *topology.Snapshot
		news string
	}{
		{boxes("web", "db"), "db came"},
		{publish(boxes("web", "db"), 8080, 1, ""), "port tcp 0.0.0.0:8080 is published"},
		{publish(boxes("web", "db"), 8080, 1, "nobody listens"), "port tcp 0.0.0.0:8080: nobody listens"},
		{publish(boxes("web", "db"), 8080, 1, ""), "port tcp 0.0.0.0:8080 has no fault any more"},
		{boxes("web", "db"), "port tcp 0.0.0.0:8080 is closed"},
		{boxes("web"), "db went"},
	} {
		s.show(x.s)
		m := page.want("change")
		apply(m)
		if !strings.Contains(strings.Join(m.News, "\n"), x.news) {
			t.Errorf("the news are %q, want %q among them", m.News, x.news)
		}
		want, err := draw(x.s, nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(shown) != len(want.parts) {
			t.Errorf("%s: %d parts, want %d", x.news, len(shown), len(want.parts))
		}
		for _, p := range want.parts {
			if shown[p.key] != p.text {
				t.Errorf("%s: %s is\n%s\nwant\n%s", x.news, p.key, shown[p.key], p.text)
			}
		}
	}
}

// What is the same is not sent.
func TestTheSameSnapshotIsNoChange(t *testing.T) {
	t.Parallel()
	s := newStage(t, boxes("web"), nil)
	page := s.open(t, "", "")
	page.want("whole")
	s.show(boxes("web"))
	s.show(boxes("web"))
	s.show(boxes("web", "db"))
	if m := page.want("change"); len(m.News) == 0 || !strings.HasSuffix(page.id, "-2") {
		t.Errorf("%s: %+v", page.id, m)
	}
}

func TestUnfolded(t *testing.T) {
	t.Parallel()
	names := make([]string, 100)
	for i := range names {
		names[i] = fmt.Sprintf("box%03d", i)
	}
	s := newStage(t, boxes(names...), nil)
	count := func(m message) (boxes int, group string) {
		for _, p := range m.Parts {
			if strings.HasPrefix(p[0], "ns-") {
				boxes++
			}
			if g, ok := strings.CutPrefix(p[0], "more-"); ok {
				group = g
			}
		}
		return boxes, group
	}
	n, group := count(s.open(t, "", "").want("whole"))
	if n != 31 || group == "" {
		t.Fatalf("%d boxes, the group is %q", n, group)
	}
	if n, rest := count(s.open(t, "?unfold="+group+"&unfold=nonsense", "").want("whole")); n != 101 || rest != "" {
		t.Errorf("unfolded: %d boxes, %q", n, rest)
	}
}

func TestResume(t *testing.T) {
	t.Parallel()
	s := newStage(t, boxes("web"), nil)
	page := s.open(t, "", "")
	page.want("whole")
	first := page.id
	s.show(boxes("web", "db"))
	page.want("change")
	s.show(boxes("web", "db", "log"))
	page.want("change")
	last := page.id
	for _, x := range []struct {
		id        string
		missed    uint64
		news      string
		restarted bool
	}{
		{first, 2, "db came\nhost: v1 came\nlog came", false},
		{last, 0, "", false},
		{"", 0, "", false},
		{"another-1", 0, "", true},
		{s.hub.epoch + "-99", 0, "", true},
		{s.hub.epoch + "-x", 0, "", true},
		{"-", 0, "", true},
		{"nonsense", 0, "", false},
	} {
		for _, m := range []message{s.open(t, "", x.id).want("whole"), s.open(t, "?since="+x.id, "").want("whole")} {
			news := strings.Join(m.News, "\n")
			if m.Missed != x.missed || m.Restarted != x.restarted || (news == "") != (x.news == "") {
				t.Errorf("after %q: missed %d, restarted %v, %q", x.id, m.Missed, m.Restarted, news)
			}
			for want := range strings.Lines(x.news) {
				if !strings.Contains(news, strings.TrimSpace(want)) {
					t.Errorf("after %q: %q has no %q", x.id, news, want)
				}
			}
		}
	}
}

// A page that has missed more than the server keeps gets their number, and the last ones.
func TestManyMissed(t *testing.T) {
	t.Parallel()
	h := newHub()
	for i := range 2 * maxHistory {
		h.put(boxes(fmt.Sprint("box", i)))
	}
	if len(h.history) > maxHistory {
		t.Errorf("%d views are remembered", len(h.history))
	}
	if news, whole := h.since(1, h.last.seq); whole || len(news) != maxNews || !strings.HasSuffix(news[len(news)-1], fmt.Sprint("box", 2*maxHistory-1)+" now") {
		t.Errorf("whole %v, %d: %q", whole, len(news), news)
	}
}

func TestManyPages(t *testing.T) {
	t.Parallel()
	s := newStage(t, boxes("web"), nil)
	var pages []*reading
	var bodies []io.Closer
	for range maxPages {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.base+"/events", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("page %d: %v, %v", len(pages), resp, err)
		}
		t.Cleanup(func() { resp.Body.Close() })
		pages, bodies = append(pages, newReading(t, resp.Body)), append(bodies, resp.Body)
	}
	for _, p := range pages {
		p.want("whole")
	}
	if status, h, body := s.get(t, "/events", nil); status != http.StatusServiceUnavailable || h.Get("Retry-After") == "" || !strings.Contains(body, "64 pages") {
		t.Errorf("one page more is %d, %v, %s", status, h, body)
	}
	s.show(boxes("web", "db"))
	for _, p := range pages {
		if m := p.want("change"); m.Counts.Namespaces != 3 {
			t.Errorf("%+v", m)
		}
	}
	for _, b := range bodies { // the browsers go away
		b.Close()
	}
	until(t, "the pages are closed", func() bool { return len(s.pages) == 0 })
	s.open(t, "", "").want("whole")
}

// deaf opens a page that never reads.
func deaf(t *testing.T, s *stage) {
	t.Helper()
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(s.base, "http://"))
	if err == nil {
		err = c.(*net.TCPConn).SetReadBuffer(1)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if _, err := fmt.Fprintf(c, "GET /events HTTP/1.1\r\nHost: %s\r\n\r\n", strings.TrimPrefix(s.base, "http://")); err != nil {
		t.Fatal(err)
	}
}

// What a page that does not read has missed is not kept for it.
func TestDeafPageKeepsNothing(t *testing.T) {
	t.Parallel()
	names := make([]string, 30)
	for i := range names {
		names[i] = fmt.Sprint("box", i)
	}
	s := newStage(t, boxes(names...), func(s *server) { s.writeTimeout, s.rest = time.Hour, 0 })
	deaf(t, s)
	until(t, "the page is open", func() bool { return len(s.pages) == 1 })
	var views []weak.Pointer[view]
	for i := range 200 {
		s.show(publish(boxes(names...), uint16(1+i), 0, ""))
		v, err := s.hub.latest(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		views = append(views, weak.Make(v))
	}
	until(t, "old views are freed", func() bool {
		runtime.GC()
		kept := 0
		for _, v := range views {
			if v.Value() != nil {
				kept++
			}
		}
		return kept <= 3 // the latest, the one that the page is sent, and one that a loop still holds
	})
}

func TestDeafPageIsDropped(t *testing.T) {
	t.Parallel()
	names := make([]string, 30)
	for i := range names {
		names[i] = fmt.Sprint("box", i)
	}
	s := newStage(t, boxes(names...), func(s *server) { s.writeTimeout, s.rest = 200*time.Millisecond, 0 })
	deaf(t, s)
	until(t, "the page is open", func() bool { return len(s.pages) == 1 })
	port := uint16(0)
	until(t, "the page is dropped", func() bool {
		port++
		s.show(publish(boxes(names...), port, 0, ""))
		return len(s.pages) == 0
	})
	// It connects again, and gets what it has missed.
	m := s.open(t, "", s.hub.epoch+"-1").want("whole")
	if m.Missed != uint64(port) || len(m.News) == 0 {
		t.Errorf("after %d changes it has missed %d: %q", port, m.Missed, m.News)
	}
}

func TestHeadOfEvents(t *testing.T) {
	t.Parallel()
	s := newStage(t, boxes("web"), nil)
	status, h, body := s.get(t, "/events", func(r *http.Request) { r.Method = http.MethodHead })
	if status != http.StatusOK || h.Get("Content-Type") != "text/event-stream" || body != "" {
		t.Errorf("%d, %v, %q", status, h, body)
	}
}

// A port that does not answer has the words of the explainer, as long as the fault is the same.
func TestExplained(t *testing.T) {
	t.Parallel()
	asked := make(chan string, 100)
	s := newStage(t, nil, func(s *server) {
		s.src.explain = func(_ context.Context, _ *topology.Snapshot, host uint64, p topology.Port) (string, error) {
			asked <- fmt.Sprint(host, " ", p.Host)
			return "because of " + p.Fault, nil
		}
	})
	s.show(publish(boxes("web"), 8080, 0, ""))
	page := s.open(t, "", "")
	page.want("whole")
	s.show(publish(boxes("web"), 8080, 0, "nobody listens"))
	fault := func() string {
		_, _, body := s.get(t, "/snapshot.json", nil)
		_, rest, _ := strings.Cut(body, `"fault": "`)
		fault, _, _ := strings.Cut(rest, `"`)
		return fault
	}
	until(t, "the words are shown", func() bool { return fault() == "because of nobody listens" })
	if got := <-asked; got != "1 0.0.0.0:8080" {
		t.Errorf("asked about %s", got)
	}
	// The words stay when something else changes, without a moment of other words.
	s.show(publish(boxes("web", "db"), 8080, 0, "nobody listens"))
	if got := fault(); got != "because of nobody listens" {
		t.Errorf("the fault is %q", got)
	}
	s.show(publish(boxes("web", "db"), 8080, 0, "the box is gone"))
	until(t, "the new words are shown", func() bool { return fault() == "because of the box is gone" })
	s.show(publish(boxes("web", "db"), 8080, 0, ""))
	if got := fault(); got != "" {
		t.Errorf("the fault is %q", got)
	}
}
