package main

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"

	"github.com/boxwire/boxwire/internal/topology"
)

//go:embed page
var files embed.FS

// scripts are the parts of the page's script, in their order.
var scripts = []string{"tree.js", "picture.js", "panel.js", "rates.js", "search.js", "keys.js", "stream.js"}

// A page is the one document of the server. It needs no other file.
type page struct {
	html   []byte
	policy string // Content-Security-Policy
}

// newPage puts the page together. Its style has that of the pictures, because their elements are placed
// into the page without it.
func newPage() (p page, err error) {
	empty, err := draw(&topology.Snapshot{}, nil)
	if err != nil {
		return p, err
	}
	read := func(name string) string {
		b, e := files.ReadFile("page/" + name)
		if e != nil {
			err = e
		}
		return string(b)
	}
	var script strings.Builder
	script.WriteString("(() => {\n'use strict';\n")
	for _, name := range scripts {
		script.WriteString(read(name))
	}
	script.WriteString("})();\n")
	style := empty.style + read("page.css")
	html := read("page.html")
	if err != nil {
		return p, err
	}
	html = strings.Replace(html, "/* style */", style, 1)
	html = strings.Replace(html, "/* script */", script.String(), 1)
	p.html = []byte(html)
	p.policy = strings.Join([]string{
		"default-src 'none'", "script-src " + hash(script.String()), "style-src " + hash(style),
		"connect-src 'self'", "img-src 'self' data:", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'",
		"require-trusted-types-for 'script'", "trusted-types picture",
	}, "; ")
	if n := bytes.Count(p.html, []byte("</script>")); n != 1 {
		return p, fmt.Errorf("the page has %d scripts", n)
	}
	return p, nil
}

// hash is the source expression of an inline text (Content Security Policy Level 3).
func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

func (p page) serve(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Security-Policy", p.policy)
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Write(p.html)
}
