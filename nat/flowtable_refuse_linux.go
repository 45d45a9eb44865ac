package nat

import (
	"errors"
	"strings"

	"github.com/boxwire/boxwire/internal/kernel"
	"github.com/boxwire/boxwire/internal/nft"
	"github.com/boxwire/boxwire/internal/refuse"
	"golang.org/x/sys/unix"
)

// refuseFlowtable refuses the option on a kernel whose flowtables cannot be used.
func refuseFlowtable(net Network) error {
	if !net.Flowtable {
		return nil
	}
	return flowtableKernel(kernel.Release())
}

// flowtableKernel says why a kernel's flowtables cannot be used.
//
// Before 9b7c68b3911a ("netfilter: ctnetlink: Support offloaded conntrack entry deletion") it does not
// delete the entries of such flows. From the rework of the way that packets leave by until 871df5007eda
// ("netfilter: flowtable: bail out if forward path cannot be discovered"), it takes flows to a bridge whose
// ports the flowtable does not have, and loses their packets or sends them past the bridge.
func flowtableKernel(release string) error {
	at := func(major, minor int) bool { return kernel.ReleaseAtLeast(release, major, minor) }
	switch {
	case !at(6, 4):
		return refuse.As(errors.ErrUnsupported, "the option Flowtable needs Linux 6.4, and this is %s: older kernels do not end the flows of a flowtable", release)
	case at(6, 19) && !at(7, 2):
		return refuse.As(errors.ErrUnsupported, "the option Flowtable needs Linux 7.2, or one from 6.4 to 6.18, and this is %s: kernels between them lose packets to bridges", release)
	}
	return nil
}

// refusedFlowtable returns the kernel's refusal of a part of the table that it may lack.
func refusedFlowtable(err error) *nft.Error {
	var refused *nft.Error
	if !errors.As(err, &refused) || refused.What != flowtable(nil).What() && !strings.HasSuffix(refused.What, " in chain "+flowChain) {
		return nil
	}
	switch refused.Err.Errno {
	case unix.ENOENT, unix.EOPNOTSUPP, unix.EAFNOSUPPORT:
		return refused
	}
	return nil
}

// lacksLink reports whether a commit failed because a device of the flowtable went meanwhile. The
// kernel points to its name. It is built again then.
func lacksLink(err error) bool {
	refused := refusedFlowtable(err)
	return refused != nil && refused.What == flowtable(nil).What() && refused.Err.Errno == unix.ENOENT && refused.Err.Attr != ""
}

// namesFlowtable says what the kernel lacks, if it refuses the table.
func namesFlowtable(err error) error {
	if refused := refusedFlowtable(err); refused != nil {
		return refuse.As(errors.ErrUnsupported, "the kernel has no flowtable, which the option Flowtable needs (CONFIG_NF_FLOW_TABLE_INET and CONFIG_NFT_FLOW_OFFLOAD, modules nf_flow_table_inet and nft_flow_offload): %v", refused)
	}
	return err
}
