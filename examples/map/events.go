package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// A message is what a page is sent: the whole picture, or what has changed in it.
type message struct {
	Host   string `json:"host,omitempty"` // the name of the machine
	At     int64  `json:"at"`             // milliseconds since 1970
	Width  string `json:"width"`
	Height string `json:"height"`
	Title  string `json:"title"`

	// Parts are keys and elements in the order of the picture, of a whole one alone.
	Parts [][2]string `json:"parts,omitempty"`

	// Put are keys, the keys of the parts before them, and elements. Gone are keys.
	Put  [][3]string `json:"put,omitempty"`
	Gone []string    `json:"gone,omitempty"`

	Counts  counts   `json:"counts"`
	Notes   []string `json:"notes,omitempty"`
	Trouble string   `json:"trouble,omitempty"`

	// News are the changes in words: since the message before, or since the one that the page has
	// had last before the connection was lost.
	News []string `json:"news,omitempty"`

	// Missed is how many changes the page has missed while the connection was lost. Restarted says
	// that this is not known, because the program is not the one that the page was connected to.
	Missed    uint64 `json:"missed,omitempty"`
	Restarted bool   `json:"restarted,omitempty"`
}

// Counts are of what is on the machine.
type counts struct {
	Namespaces int `json:"namespaces"`
	Links      int `json:"links"`
	Ports      int `json:"ports"`
	Faults     int `json:"faults"`
}

// events follows the machine for a page (server-sent events). A page that does not read fast enough
// misses the views between, and one that does not read at all is dropped.
func (s *server) events(w http.ResponseWriter, r *http.Request) {
	select {
	case s.pages <- struct{}{}:
		defer func() { <-s.pages }()
	default:
		w.Header().Set("Retry-After", "5")
		http.Error(w, fmt.Sprintf("map: %d pages are open, and no more are served", maxPages), http.StatusServiceUnavailable)
		return
	}
	v := s.view(w, r)
	if v == nil {
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no")
	if r.Method == http.MethodHead {
		return
	}
	p := &openPage{server: s, w: w, control: http.NewResponseController(w), groups: canonical(r.URL.Query()["unfold"])}
	after := r.Header.Get("Last-Event-ID")
	if after == "" {
		after = r.URL.Query().Get("since")
	}
	if err := p.whole(v, after); err != nil {
		return
	}
	beat := time.NewTicker(s.beat)
	defer beat.Stop()
	for {
		select {
		case <-r.Context().Done():
			return
		case <-beat.C:
			if p.send("beat", "", struct{}{}) != nil {
				return
			}
			continue
		case <-p.view.next:
		}
		v, err := s.hub.latest(r.Context())
		if err != nil || p.change(v) != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-time.After(s.rest):
		}
	}
}

// An openPage is a page that follows the machine, and what it was sent last.
type openPage struct {
	server  *server
	w       http.ResponseWriter
	control *http.ResponseController
	groups  []string // that it unfolds
	view    *view
	drawing *drawing
}

// whole sends the whole picture. after is the id of the message that the page has had last.
func (p *openPage) whole(v *view, after string) error {
	d, err := v.draw(p.groups)
	if err != nil {
		return err
	}
	m := p.message(v, d)
	m.Host, _ = os.Hostname()
	for _, x := range d.parts {
		m.Parts = append(m.Parts, [2]string{x.key, x.text})
	}
	if epoch, number, ok := strings.Cut(after, "-"); ok {
		seq, err := strconv.ParseUint(number, 10, 64)
		switch {
		case err != nil || epoch != p.server.hub.epoch || seq > v.seq:
			m.Restarted = true
		case seq < v.seq:
			m.Missed = v.seq - seq
			m.News, _ = p.server.hub.since(seq, v.seq)
		}
	}
	return p.sent(v, d, "whole", m)
}

// change sends what has changed since the message before.
func (p *openPage) change(v *view) error {
	d, err := v.draw(p.groups)
	if err != nil {
		return err
	}
	m := p.message(v, d)
	c := d.since(p.drawing)
	m.Put, m.Gone = c.put, c.gone
	m.News, _ = p.server.hub.since(p.view.seq, v.seq)
	return p.sent(v, d, "change", m)
}

func (p *openPage) message(v *view, d *drawing) message {
	m := message{At: v.at.UnixMilli(), Width: d.width, Height: d.height, Title: d.title, Notes: v.snapshot.Notes, Trouble: v.trouble}
	m.Counts.Namespaces = len(v.snapshot.Namespaces)
	for _, n := range v.snapshot.Namespaces {
		for _, l := range n.Links {
			if l.Name != "lo" { // which is not drawn
				m.Counts.Links++
			}
		}
		m.Counts.Ports += len(n.Ports)
		for _, x := range n.Ports {
			if x.Fault != "" {
				m.Counts.Faults++
			}
		}
	}
	return m
}

// sent sends a message, and keeps what the page has then.
func (p *openPage) sent(v *view, d *drawing, event string, m message) error {
	p.view, p.drawing = v, d
	return p.send(event, fmt.Sprintf("%s-%d", p.server.hub.epoch, v.seq), m)
}

// send writes an event, or fails when the page does not read.
func (p *openPage) send(event, id string, data any) error {
	if err := p.control.SetWriteDeadline(time.Now().Add(p.server.writeTimeout)); err != nil {
		return err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "event: %s\n", event)
	if id != "" {
		fmt.Fprintf(&b, "id: %s\n", id)
	}
	b.WriteString("data: ")
	e := json.NewEncoder(&b) // its text is one line
	e.SetEscapeHTML(false)
	if err := e.Encode(data); err != nil {
		return err
	}
	b.WriteString("\n")
	if _, err := p.w.Write([]byte(b.String())); err != nil {
		return err
	}
	return p.control.Flush()
}
