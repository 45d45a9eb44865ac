//go:build !linux

package route

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"runtime"

	"github.com/boxwire/boxwire/netns"
)

func unsupported(op string) error {
	return &netns.Error{Op: op, Err: fmt.Errorf("routes need Linux, this is %s: %w", runtime.GOOS, errors.ErrUnsupported)}
}

// none is a sequence of nothing but the error.
func none[T any](op string) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var zero T
		yield(zero, unsupported(op))
	}
}

// Add returns errors.ErrUnsupported.
func Add(context.Context, *netns.NS, ...Route) error {
	return unsupported("route.Add")
}

// Append returns errors.ErrUnsupported.
func Append(context.Context, *netns.NS, ...Route) error {
	return unsupported("route.Append")
}

// Replace returns errors.ErrUnsupported.
func Replace(context.Context, *netns.NS, ...Route) error {
	return unsupported("route.Replace")
}

// Change returns errors.ErrUnsupported.
func Change(context.Context, *netns.NS, ...Route) error {
	return unsupported("route.Change")
}

// Delete returns errors.ErrUnsupported.
func Delete(context.Context, *netns.NS, ...Route) error {
	return unsupported("route.Delete")
}

// Flush returns errors.ErrUnsupported.
func Flush(context.Context, *netns.NS, Filter) (int, error) {
	return 0, unsupported("route.Flush")
}

// List returns errors.ErrUnsupported.
func List(context.Context, *netns.NS, Filter) ([]Route, error) {
	return nil, unsupported("route.List")
}

// All yields nothing but errors.ErrUnsupported.
func All(context.Context, *netns.NS, Filter) iter.Seq2[Route, error] {
	return none[Route]("route.All")
}

// Sync returns errors.ErrUnsupported.
func Sync(context.Context, *netns.NS, Protocol, ...Route) (Changes, error) {
	return Changes{}, unsupported("route.Sync")
}

// Lookup returns errors.ErrUnsupported.
func Lookup(context.Context, *netns.NS, Query) (Match, error) {
	return Match{}, unsupported("route.Lookup")
}

// AddRules returns errors.ErrUnsupported.
func AddRules(context.Context, *netns.NS, ...Rule) error {
	return unsupported("route.AddRules")
}

// DeleteRules returns errors.ErrUnsupported.
func DeleteRules(context.Context, *netns.NS, ...Rule) error {
	return unsupported("route.DeleteRules")
}

// ListRules returns errors.ErrUnsupported.
func ListRules(context.Context, *netns.NS, Family) ([]Rule, error) {
	return nil, unsupported("route.ListRules")
}

// SyncRules returns errors.ErrUnsupported.
func SyncRules(context.Context, *netns.NS, Protocol, ...Rule) (Changes, error) {
	return Changes{}, unsupported("route.SyncRules")
}

// AddNextHops returns errors.ErrUnsupported.
func AddNextHops(context.Context, *netns.NS, ...NextHop) error {
	return unsupported("route.AddNextHops")
}

// ReplaceNextHops returns errors.ErrUnsupported.
func ReplaceNextHops(context.Context, *netns.NS, ...NextHop) error {
	return unsupported("route.ReplaceNextHops")
}

// DeleteNextHops returns errors.ErrUnsupported.
func DeleteNextHops(context.Context, *netns.NS, ...uint32) error {
	return unsupported("route.DeleteNextHops")
}

// GetNextHop returns errors.ErrUnsupported.
func GetNextHop(context.Context, *netns.NS, uint32) (NextHop, error) {
	return NextHop{}, unsupported("route.GetNextHop")
}

// ListNextHops returns errors.ErrUnsupported.
func ListNextHops(context.Context, *netns.NS, NextHopFilter) ([]NextHop, error) {
	return nil, unsupported("route.ListNextHops")
}

// Buckets returns errors.ErrUnsupported.
func Buckets(context.Context, *netns.NS, uint32) ([]Bucket, error) {
	return nil, unsupported("route.Buckets")
}

// Watch yields nothing but errors.ErrUnsupported.
func Watch(context.Context, *netns.NS, Filter) iter.Seq2[Event[Route], error] {
	return none[Event[Route]]("route.Watch")
}

// WatchRules yields nothing but errors.ErrUnsupported.
func WatchRules(context.Context, *netns.NS, Family) iter.Seq2[Event[Rule], error] {
	return none[Event[Rule]]("route.WatchRules")
}

// WatchNextHops yields nothing but errors.ErrUnsupported.
func WatchNextHops(context.Context, *netns.NS) iter.Seq2[Event[NextHop], error] {
	return none[Event[NextHop]]("route.WatchNextHops")
}
