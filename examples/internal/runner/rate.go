//go:build linux

package runner

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/boxwire/boxwire/link"
)

// parseRate reads a number of bits a second, with k, M or G for thousands,
// millions and thousands of millions.
func parseRate(s string) (link.Rate, error) {
	number, factor := s, 1.0
	for suffix, f := range map[string]float64{"k": 1e3, "M": 1e6, "G": 1e9} {
		if rest, ok := strings.CutSuffix(s, suffix); ok {
			number, factor = rest, f
		}
	}
	v, err := strconv.ParseFloat(number, 64)
	if err != nil || !(v*factor >= 8000 && v*factor <= 1e12) {
		return 0, fmt.Errorf("%q is no rate: a number of bits a second from 8k to 1000G", s)
	}
	return link.Rate(v * factor), nil
}

// limit shapes what passes the box's port. What the box receives is what the port
// sends, and the other way round.
func limit(ctx context.Context, port link.Link, o *options) error {
	if o.up == 0 && o.down == 0 {
		return nil
	}
	return port.SetRate(ctx, link.Limit{Rate: o.down}, link.Limit{Rate: o.up})
}
