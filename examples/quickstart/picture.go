//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/boxwire/boxwire/internal/topology"
	"github.com/boxwire/boxwire/internal/topology/firewall"
	"github.com/boxwire/boxwire/netns"
)

// draw prints what is wired to what. Every name, address and port in it is read back from the kernel.
func (w *world) draw(ctx context.Context, out io.Writer) error {
	s, err := w.read(ctx)
	if err != nil {
		return err
	}
	if _, err := io.WriteString(out, "\n"); err != nil {
		return err
	}
	return topology.WriteTree(out, s)
}

// drawFile writes the same as a picture.
func (w *world) drawFile(ctx context.Context, file string) error {
	s, err := w.read(ctx)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := topology.WriteSVG(&b, s); err != nil {
		return err
	}
	return os.WriteFile(file, b.Bytes(), 0o644)
}

// read reads the four namespaces of the program.
func (w *world) read(ctx context.Context) (*topology.Snapshot, error) {
	ours := []netns.ID{w.host.ID(), w.outside.ID(), w.web1.ID(), w.web2.ID()}
	s, err := topology.Read(ctx, topology.Options{
		Host:     w.host,
		Some:     func(info netns.Info) bool { return slices.Contains(ours, info.ID) },
		Firewall: firewall.Read,
	})
	if err != nil {
		return nil, err
	}
	if len(s.Namespaces) != len(ours) {
		return nil, fmt.Errorf("%d of %d namespaces can be read", len(s.Namespaces), len(ours))
	}
	s.Notes = nil // of processes of others, which are not asked for
	return s, nil
}
