package main

import (
	"encoding/xml"
	"fmt"
	"strings"

	"github.com/boxwire/boxwire/internal/topology"
)

// A drawing is a picture in parts, so that a page replaces what has changed and keeps the rest.
type drawing struct {
	width, height string
	title         string
	style         string
	parts         []part
	at            map[string]int // a part's place, by its key
}

// A part is an element of the picture.
type part struct {
	key  string // its id
	text string // the whole element
}

// draw draws a snapshot. The groups are drawn whole.
func draw(s *topology.Snapshot, groups []string) (*drawing, error) {
	text, err := svg(s, groups)
	if err != nil {
		return nil, err
	}
	return split(text)
}

// svg is the picture of a snapshot.
func svg(s *topology.Snapshot, groups []string) (string, error) {
	unfolded := make(map[string]bool, len(groups))
	for _, g := range groups {
		unfolded[g] = true
	}
	var b strings.Builder
	err := topology.SVG{Unfolded: func(group string) bool { return unfolded[group] }}.Write(&b, s)
	return b.String(), err
}

// split takes a picture apart.
func split(text string) (*drawing, error) {
	d := &drawing{at: make(map[string]int)}
	// The elements are those below the root. RawToken does not check that they end, and the picture
	// is of this program.
	dec := xml.NewDecoder(strings.NewReader(text))
	depth, begin, name, id := 0, int64(0), "", ""
	for {
		before := dec.InputOffset()
		t, err := dec.RawToken()
		if t == nil {
			if depth != 0 {
				return nil, fmt.Errorf("the picture is cut off: %w", err)
			}
			return d, nil
		}
		switch t := t.(type) {
		case xml.StartElement:
			switch depth {
			case 0:
				d.width, d.height = attr(t, "width"), attr(t, "height")
			case 1:
				begin, name, id = before, t.Name.Local, attr(t, "id")
			}
			depth++
		case xml.EndElement:
			if depth--; depth == 1 {
				d.add(name, id, text[begin:dec.InputOffset()])
			}
		}
	}
}

// add adds an element.
func (d *drawing) add(name, id, text string) {
	switch {
	case name == "title":
		d.title = inner(text)
		return
	case name == "style":
		d.style = inner(text)
		return
	case id == "":
		id = name
	}
	key := id
	for i := 2; ; i++ {
		if _, taken := d.at[key]; !taken {
			break
		}
		key = fmt.Sprintf("%s~%d", id, i)
	}
	d.at[key] = len(d.parts)
	d.parts = append(d.parts, part{key, text})
}

// inner is the text of an element that has text alone.
func inner(text string) string {
	var s string
	if xml.Unmarshal([]byte(text), &s) != nil {
		return ""
	}
	return s
}

func attr(e xml.StartElement, name string) string {
	for _, a := range e.Attr {
		if a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}

// A change makes one drawing of another.
type change struct {
	put  [][3]string // key, the key of the part before it ("" is none), and the text
	gone []string    // keys
}

// since is what has changed since an older drawing. Its parts go in the order of the new drawing.
func (d *drawing) since(old *drawing) (c change) {
	if d == old {
		return c
	}
	for _, p := range old.parts {
		if _, ok := d.at[p.key]; !ok {
			c.gone = append(c.gone, p.key)
		}
	}
	before, last := "", -1
	for _, p := range d.parts {
		i, ok := old.at[p.key]
		// A part that now comes before one that it followed moves.
		if !ok || old.parts[i].text != p.text || i < last {
			c.put = append(c.put, [3]string{p.key, before, p.text})
		}
		if ok {
			last = max(last, i)
		}
		before = p.key
	}
	return c
}
