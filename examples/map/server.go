package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/boxwire/boxwire/internal/topology"
)

// Bounds of the server.
const (
	maxPages       = 64  // that are open at a time
	maxConnections = 256 // of all kinds
	maxWorkers     = 8   // requests that read the machine, at a time
	maxHeader      = 16 << 10
)

// A server serves the page. It reads the machine and changes nothing.
type server struct {
	src   source
	hub   *hub
	hosts hosts
	page  page

	pages   chan struct{} // a place for each that is open
	workers chan struct{}

	writeTimeout time.Duration // for each write: a page that does not read is dropped
	beat         time.Duration // how often a page hears that the server is there
	rest         time.Duration // between two drawings for a page
}

func newServer(src source, bound net.Addr) (*server, error) {
	p, err := newPage()
	if err != nil {
		return nil, err
	}
	return &server{
		src: src, hub: newHub(), hosts: hostsOf(bound), page: p,
		pages: make(chan struct{}, maxPages), workers: make(chan struct{}, maxWorkers),
		writeTimeout: 10 * time.Second, beat: 15 * time.Second, rest: 20 * time.Millisecond,
	}, nil
}

// serve serves the page until the context ends, and writes its URL to out when it can be opened.
func serve(ctx context.Context, a address, src source, out io.Writer) error {
	l, err := a.listen(ctx)
	if err != nil {
		return err
	}
	s, err := newServer(src, l.Addr())
	if err != nil {
		l.Close()
		return err
	}
	fmt.Fprintln(out, url(l.Addr()))
	return s.run(ctx, l)
}

// run answers on a listener until the context ends.
func (s *server) run(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	followed := make(chan struct{})
	go func() {
		defer close(followed)
		s.hub.follow(ctx, s.src, time.Second)
	}()
	web := &http.Server{
		Handler:           s.guard(s.routes()),
		ReadHeaderTimeout: 5 * time.Second,
		WriteTimeout:      s.writeTimeout,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    maxHeader,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ErrorLog:          log.New(io.Discard, "", 0), // what clients do wrong is no matter of the operator
	}
	stop := context.AfterFunc(ctx, func() { web.Close() }) // open pages would keep Shutdown waiting
	defer stop()
	err := web.Serve(bound(l, maxConnections))
	ended := ctx.Err() != nil
	cancel()
	<-followed
	if ended && errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

func (s *server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/{$}", s.page.serve)
	mux.HandleFunc("/events", s.events)
	mux.HandleFunc("/map.svg", s.svg)
	mux.HandleFunc("/snapshot.json", s.snapshot)
	mux.HandleFunc("/details", s.details)
	mux.HandleFunc("/search", s.search)
	mux.HandleFunc("/rates", s.rates)
	return mux
}

// view returns the latest view. It is nil if the request has ended before there was one.
func (s *server) view(w http.ResponseWriter, r *http.Request) *view {
	v, err := s.hub.latest(r.Context())
	if err != nil {
		http.Error(w, "map: the machine has not been read yet", http.StatusServiceUnavailable)
		return nil
	}
	return v
}

// worker takes a place among those that read the machine. It returns nil if the request has ended.
func (s *server) worker(r *http.Request) (done func()) {
	select {
	case s.workers <- struct{}{}:
		return func() { <-s.workers }
	case <-r.Context().Done():
		return nil
	}
}

func (s *server) svg(w http.ResponseWriter, r *http.Request) {
	v := s.view(w, r)
	if v == nil {
		return
	}
	done := s.worker(r)
	if done == nil {
		return
	}
	text, err := svg(v.snapshot, canonical(r.URL.Query()["unfold"]))
	done()
	if err != nil {
		http.Error(w, "map: "+err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "image/svg+xml")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; sandbox")
	io.WriteString(w, text)
}

func (s *server) snapshot(w http.ResponseWriter, r *http.Request) {
	if v := s.view(w, r); v != nil {
		w.Header().Set("Content-Type", "application/json")
		writeJSON(w, v.snapshot)
	}
}

// answer writes a value as JSON.
func answer(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(value)
}

// namespace returns the namespace that a request is about. It is nil if that is gone. What is no request
// for a namespace is answered, and not ok.
func namespace(w http.ResponseWriter, r *http.Request, s *topology.Snapshot) (n *topology.Namespace, ok bool) {
	inode, err := strconv.ParseUint(r.URL.Query().Get("ns"), 10, 64)
	if err != nil {
		http.Error(w, "map: ns is the inode number of a namespace", http.StatusBadRequest)
		return nil, false
	}
	return s.Namespace(inode), true
}
