package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/boxwire/boxwire/examples/fleet/internal/state"
	"github.com/boxwire/boxwire/netns"
)

// PoolFullError says that all prefixes of a family are claimed.
type PoolFullError struct {
	Family  netns.Family
	Pools   []netip.Prefix
	Size    int      // length of a node's prefix
	Holders []Holder // by prefix
}

// Holder is a node that has claimed a prefix.
type Holder struct {
	Prefix netip.Prefix
	Node   state.ID // zero if the claim cannot be read
	Name   string   // for people
}

func (e *PoolFullError) Error() string {
	const most = 8
	var b strings.Builder
	fmt.Fprintf(&b, "pool %v has no prefix of length %d left:", e.Pools, e.Size)
	for i, h := range e.Holders {
		if i == most {
			fmt.Fprintf(&b, ", and %d more", len(e.Holders)-most)
			break
		}
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, " %v is of %s", h.Prefix, h.Name)
	}
	b.WriteString("; let go of a node that is gone for good (fleet forget NODE)")
	return b.String()
}

// TakenError says that another agent with the same identity runs.
type TakenError struct {
	Other state.Alive
}

func (e *TakenError) Error() string {
	return fmt.Sprintf("node %v: its agent runs on machine %q as process %d (generation %d): an identity is for one machine, has its directory been copied?",
		e.Other.ID, e.Other.Machine, e.Other.Pid, e.Other.Generation)
}

// Is makes a TakenError an os.ErrExist.
func (e *TakenError) Is(target error) bool { return target == os.ErrExist }

// invalid is an error that is os.ErrInvalid.
func invalid(format string, args ...any) error { return &badInput{fmt.Errorf(format, args...)} }

type badInput struct{ error }

func (e *badInput) Is(target error) bool { return target == os.ErrInvalid }
func (e *badInput) Unwrap() error        { return e.error }

// code is the gRPC code of an error, whatever form etcd's client has given it. It is OK for an error that gRPC has no part in.
func code(err error) codes.Code {
	var e rpctypes.EtcdError
	if errors.As(err, &e) {
		return e.Code()
	}
	if s, ok := status.FromError(err); ok {
		return s.Code()
	}
	return codes.OK
}

// away reports whether the error says that the store cannot be reached, has no leader, or has too much to do.
func away(err error) bool {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, rpctypes.ErrTooManyRequests) || errors.Is(err, io.EOF) {
		return true
	}
	switch code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Aborted, codes.Internal, codes.Canceled: // the last by a member that stops
		return true
	}
	return false
}

// plain is the error without gRPC's words around it.
func plain(err error) error {
	err = rpctypes.Error(err)
	var e rpctypes.EtcdError
	if s, ok := status.FromError(err); ok && !errors.As(err, &e) {
		return &statusError{s}
	}
	return err
}

// statusError is an error of gRPC, with its message alone.
type statusError struct{ *status.Status }

func (e *statusError) Error() string              { return e.Message() }
func (e *statusError) GRPCStatus() *status.Status { return e.Status }
