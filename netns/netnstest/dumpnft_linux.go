package netnstest

import (
	"errors"

	"github.com/boxwire/boxwire/internal/nfttext"
	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/nsconn"
	"golang.org/x/sys/unix"
)

const (
	// maxRules bounds the lines of the nftables ruleset, which has a line for each rule.
	maxRules = 500

	// maxElements bounds how many elements of a set are printed.
	maxElements = 50
)

// nftLines lists the nftables ruleset as nft does.
func (d *dumper) nftLines() ([]string, error) {
	conn, err := nsconn.Shared(d.ns, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, err
	}
	rules, err := nfttext.Read(d.ctx, conn)
	var refused *nl.Error
	if errors.As(err, &refused) { // the kernel has no nftables, or this user no say
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return rules.Lines(nfttext.Options{Elements: maxElements, Link: func(index uint32) string { return d.links[int(index)] }}), nil
}
