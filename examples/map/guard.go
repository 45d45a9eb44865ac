package main

import (
	"net/http"
	"strings"
)

// guard refuses what is not a page of this server that reads: other methods, other Host headers, and
// requests that a page of another site makes.
func (s *server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		switch {
		case !s.hosts.allows(r):
			http.Error(w, "map: this server is not the Host that the request names; behind a tunnel, use the same port at both ends", http.StatusForbidden)
		case foreign(r):
			http.Error(w, "map: a page of another site asks; open the address in a tab of its own", http.StatusForbidden)
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			h.Set("Allow", "GET, HEAD")
			http.Error(w, "map: this page can be read and not changed", http.StatusMethodNotAllowed)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// foreign reports whether another site's page makes the request.
func foreign(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "none", "same-origin":
	default:
		return true
	}
	origin, sent := r.Header["Origin"]
	return sent && (len(origin) != 1 || !strings.EqualFold(origin[0], "http://"+r.Host))
}
