//go:build linux

package main

import (
	"errors"
	"os"
	"strings"

	"github.com/boxwire/boxwire/internal/plain"
	"github.com/containernetworking/cni/pkg/types"
)

// Codes of our own; those below 100 are the specification's.
const (
	codeExists    = 100 // the attachment is there already, or something of its name
	codeDrift     = 101 // CHECK: something is not as ADD has made it
	codePortTaken = 102 // a host port is published already
)

// invalid is the error for a configuration that cannot work.
func invalid(msg string, details string) error {
	return types.NewError(types.ErrInvalidNetworkConfig, msg, details)
}

// failed says what could not be done. The causes are the details.
func failed(doing string, err error) error {
	if err == nil {
		return nil
	}
	var known *types.Error
	if errors.As(err, &known) {
		return err
	}
	code := types.ErrInternal
	switch {
	case errors.Is(err, os.ErrExist):
		code = codeExists
	case errors.Is(err, os.ErrInvalid):
		code = types.ErrInvalidNetworkConfig
	}
	return types.NewError(code, doing, oneLine(err))
}

// reply makes one error of what may be several, for the skeleton prints only one.
func reply(err error) error {
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return err
	}
	var first *types.Error
	if !errors.As(err, &first) {
		return failed("several things failed", err)
	}
	all := *first
	if len(joined.Unwrap()) > 1 {
		all.Details = oneLine(err)
	}
	return &all
}

// oneLine keeps an error that joins several on one line.
func oneLine(err error) string { return plain.Text(strings.ReplaceAll(err.Error(), "\n", "; ")) }
