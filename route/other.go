//go:build !linux

package route

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"github.com/boxwire/boxwire/netns"
)

func unsupported(op string) error {
	return &netns.Error{Op: op, Err: fmt.Errorf("routes need Linux, this is %s: %w", runtime.GOOS, errors.ErrUnsupported)}
}

// Add returns errors.ErrUnsupported.
func Add(context.Context, *netns.NS, ...Route) error { return unsupported("route.Add") }

// Replace returns errors.ErrUnsupported.
func Replace(context.Context, *netns.NS, ...Route) error { return unsupported("route.Replace") }

// Delete returns errors.ErrUnsupported.
func Delete(context.Context, *netns.NS, ...Route) error { return unsupported("route.Delete") }

// List returns errors.ErrUnsupported.
func List(context.Context, *netns.NS, Filter) ([]Route, error) {
	return nil, unsupported("route.List")
}
