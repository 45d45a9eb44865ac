package link

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/boxwire/boxwire/internal/fail"
	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/nsconn"
	"github.com/boxwire/boxwire/internal/refuse"
	"golang.org/x/sys/unix"
)

// Constants of linux/ethtool_netlink.h and linux/genetlink.h.
const (
	genlCtrl         = 16 // GENL_ID_CTRL
	ctrlGetFamily    = 3
	ctrlFamilyID     = 1
	ctrlFamilyName   = 2
	sizeofGenlMsg    = 4
	ethFeaturesGet   = 11 // ETHTOOL_MSG_FEATURES_GET
	ethFeaturesSet   = 12
	ethHeader        = 1 // ETHTOOL_A_FEATURES_*
	ethHW            = 2
	ethWanted        = 3
	ethActive        = 4
	ethNoChange      = 5
	ethHeaderIndex   = 1 // ETHTOOL_A_HEADER_*
	ethBitsetNoMask  = 1 // ETHTOOL_A_BITSET_*
	ethBitsetBits    = 3
	ethBitsetBit     = 1
	ethBitsetBitName = 2
	ethBitsetBitVal  = 3
)

// Features returns the offload features of the link, in the kernel's order, with
// the names of ethtool(8): "tx-checksum-ip-generic", "tx-tcp-segmentation",
// "rx-gro". A kernel without CONFIG_ETHTOOL_NETLINK is errors.ErrUnsupported.
func (l Link) Features(ctx context.Context) ([]Feature, error) {
	err := l.bound()
	var list []Feature
	if err == nil {
		list, err = l.features(ctx)
	}
	if err != nil {
		return nil, fail.New("link.Features", l.ns, l.subject(), err)
	}
	return list, nil
}

// SetFeatures switches offload features of the link on and off by name, and reads
// them back. A feature that the link cannot switch that way is
// errors.ErrUnsupported, and all those named are what they were. Features that
// depend on others (segmentation on checksums) may change with them, as with
// ethtool(8).
func (l Link) SetFeatures(ctx context.Context, set map[string]bool) error {
	const op = "link.SetFeatures"
	err := l.bound()
	if err == nil {
		err = checkFeatures(set)
	}
	if err == nil && len(set) > 0 {
		if ctx, err = changeContext(ctx); err == nil {
			err = l.setFeatures(ctx, set)
		}
	}
	return fail.New(op, l.ns, l.subject(), err)
}

func (l Link) setFeatures(ctx context.Context, set map[string]bool) error {
	before, err := l.features(ctx)
	if err != nil {
		return err
	}
	known := map[string]Feature{}
	for _, f := range before {
		known[f.Name] = f
	}
	for name, on := range set {
		switch f, ok := known[name]; {
		case !ok:
			return refuse.As(errors.ErrUnsupported, "the kernel has no feature %q", name)
		case f.Fixed && f.Active != on:
			return refuse.As(errors.ErrUnsupported, "the link cannot switch the feature %q", name)
		}
	}
	err = l.sendFeatures(ctx, set)
	after, rerr := l.features(ctx)
	if err = errors.Join(err, rerr); rerr != nil {
		return err
	}
	var refused []string
	undo := map[string]bool{}
	for _, f := range after {
		on, asked := set[f.Name]
		if asked && f.Active != on {
			refused = append(refused, f.Name)
		}
		if asked && f.Wanted != known[f.Name].Wanted {
			undo[f.Name] = known[f.Name].Wanted
		}
	}
	if err == nil && refused == nil {
		return nil
	}
	if err == nil {
		slices.Sort(refused)
		err = refuse.As(errors.ErrUnsupported, "the link did not switch %s; it may depend on another feature", strings.Join(refused, ", "))
	}
	if len(undo) > 0 {
		if uerr := l.sendFeatures(ctx, undo); uerr != nil {
			err = errors.Join(err, fmt.Errorf("undoing the other features: %w", uerr))
		}
	}
	return err
}

// features asks for the features of the link.
func (l Link) features(ctx context.Context) (list []Feature, err error) {
	conn, family, err := l.ethtool(ctx)
	if err != nil {
		return nil, err
	}
	err = conn.Call(ctx, featuresRequest(family, ethFeaturesGet, l.Index, nil), func(m nl.Message) error {
		list, err = decodeFeatures(m.Body)
		return err
	})
	return list, ethtoolCause(err)
}

func (l Link) sendFeatures(ctx context.Context, set map[string]bool) error {
	conn, family, err := l.ethtool(ctx)
	if err != nil {
		return err
	}
	return ethtoolCause(conn.Call(ctx, featuresRequest(family, ethFeaturesSet, l.Index, set), nil))
}

// ethtool returns the connection and the number of the generic netlink family.
// It is the same in all namespaces, and is read each time, as a module could have
// brought it: it costs one exchange.
func (l Link) ethtool(ctx context.Context) (*nl.Conn, uint16, error) {
	conn, err := nsconn.Shared(l.ns, unix.NETLINK_GENERIC)
	if err != nil {
		return nil, 0, err
	}
	var family uint16
	b := []byte{ctrlGetFamily, 1, 0, 0}
	err = conn.Call(ctx, nl.Request{Type: genlCtrl, Body: nl.AppendString(b, ctrlFamilyName, "ethtool")}, func(m nl.Message) error {
		if len(m.Body) < sizeofGenlMsg {
			return errShort
		}
		w := nl.Walk(m.Body[sizeofGenlMsg:])
		for w.Next() {
			if w.Type() == ctrlFamilyID {
				family = w.U16()
			}
		}
		return w.Err()
	})
	if _, e, ok := refused(err); ok && e.Errno == unix.ENOENT {
		err = refuse.As(errors.ErrUnsupported, "the kernel has no ethtool over netlink (Linux >= 5.6, CONFIG_ETHTOOL_NETLINK)")
	}
	return conn, family, err
}

func ethtoolCause(err error) error {
	if _, e, ok := refused(err); ok && e.Errno == unix.ENODEV {
		return notExist("the link is gone", e)
	}
	return err
}

// featuresRequest builds a request about a link's features. Those to be set are
// a bit set of names; a name without a value is off, one that is not there is left
// alone.
func featuresRequest(family uint16, cmd uint8, index int, set map[string]bool) nl.Request {
	b := append(make([]byte, 0, 128), cmd, 1, 0, 0) // struct genlmsghdr
	b, at := nl.Begin(b, ethHeader)
	b = nl.AppendU32(b, ethHeaderIndex, uint32(index))
	nl.End(b, at)
	if len(set) == 0 {
		return nl.Request{Type: family, Body: b}
	}
	names := make([]string, 0, len(set))
	for name := range set {
		names = append(names, name)
	}
	slices.Sort(names)
	b, wanted := nl.Begin(b, ethWanted)
	b, bits := nl.Begin(b, ethBitsetBits)
	for _, name := range names {
		var bit int
		b, bit = nl.Begin(b, ethBitsetBit)
		b = nl.AppendString(b, ethBitsetBitName, name)
		if set[name] {
			b = nl.AppendFlag(b, ethBitsetBitVal)
		}
		nl.End(b, bit)
	}
	nl.End(b, bits)
	nl.End(b, wanted)
	return nl.Request{Type: family, Body: b}
}

// decodeFeatures reads the answer: four bit sets of names, where HW has all
// names that there are by its mask, and the values of the others.
func decodeFeatures(b []byte) ([]Feature, error) {
	if len(b) < sizeofGenlMsg {
		return nil, errShort
	}
	var list []Feature
	at := map[string]int{}
	w := nl.Walk(b[sizeofGenlMsg:])
	for w.Next() {
		set := w.Type()
		if set < ethHW || set > ethNoChange {
			continue
		}
		err := eachBit(w.Nested(), func(name string, on bool) {
			i, ok := at[name]
			if !ok {
				i = len(list)
				at[name] = i
				list = append(list, Feature{Name: name, Fixed: true})
			}
			switch f := &list[i]; {
			case set == ethHW:
				f.Fixed = !on
			case set == ethWanted:
				f.Wanted = on
			case set == ethActive:
				f.Active = on
			case on: // ethNoChange: features that are never switched
				f.Fixed = true
			}
		})
		if err != nil {
			return nil, err
		}
	}
	return list, w.Err()
}

// eachBit calls fn for the bits of a set. In a set without a mask those that are
// listed are on.
func eachBit(w nl.Walker, fn func(name string, on bool)) error {
	noMask := false
	for w.Next() {
		switch w.Type() {
		case ethBitsetNoMask:
			noMask = true
		case ethBitsetBits: // behind the flag
			bits := w.Nested()
			for bits.Next() {
				name, on := "", noMask
				bit := bits.Nested()
				for bit.Next() {
					switch bit.Type() {
					case ethBitsetBitName:
						name = bit.String()
					case ethBitsetBitVal:
						on = true
					}
				}
				if err := bit.Err(); err != nil {
					return err
				}
				if name != "" {
					fn(name, on)
				}
			}
			if err := bits.Err(); err != nil {
				return err
			}
		}
	}
	return w.Err()
}
