package nat

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/boxwire/boxwire/internal/nft"
	"github.com/boxwire/boxwire/netns"
)

// conf6 is where IPv6 keeps its settings, per link and in "all", which is no
// link's name. The kernel takes them over netlink only for reading. What the
// folder shows are the settings of the calling thread's namespace: everything
// here that touches it runs inside netns.Do.
const conf6 = "/proc/sys/net/ipv6/conf/"

const (
	all = "all"

	forceForwarding = "force_forwarding" // >= 6.17
	forwarding6     = "forwarding"
	acceptRA        = "accept_ra"
)

// Notes in the comments of flipped6, separated by blanks: how to set a link back.
const (
	noteForce   = "force_forwarding" // the link's force_forwarding was set
	noteAll     = "all.forwarding"   // of the element "all": forwarding of all was set
	noteForward = "forwarding=1"     // the link's forwarding was 1 before
	noteRA      = acceptRA + "=1"    // the link's accept_ra was 1 before
	noteFlipped = "forwarding=0"     // the link's forwarding was 0 before, which all.forwarding sets back
)

// write is one setting to write. optional ones may vanish with their link.
type write struct {
	link, name, value string
	optional          bool
}

// plan6 is the IPv6 part of a plan.
type plan6 struct {
	record []nft.Element // for flipped6
	writes []write
}

// hasForce reports whether links can be made to forward one by one.
func hasForce() bool {
	_, err := os.Stat(conf6 + all + "/" + forceForwarding)
	return err == nil
}

// makePlan6 finds out how to make the links forward IPv6 for networks on their
// own links. known are the links in flipped6, force says that the kernel has
// force_forwarding.
func makePlan6(links []linkConf, own map[string]Network, known map[string]bool, force bool) (p plan6, err error) {
	on, err := read6(all, forwarding6)
	if errors.Is(err, os.ErrNotExist) {
		return p, fmt.Errorf("the kernel has no IPv6 (%s%s): %w", conf6, all, errors.ErrUnsupported)
	}
	if err != nil || on != "0" && !known[all] {
		return p, err // the host is a router already
	}
	ours := on != "0" // the global switch is ours: what came since forwards already
	for _, l := range links {
		if ours && known[l.name] {
			continue
		}
		_, isOwn := own[l.name]
		if l.port && !isOwn {
			continue
		}
		var note string
		var w []write
		if force {
			note, w, err = planForce(l.name)
		} else {
			note, w, err = planForward(l.name, isOwn, ours)
		}
		switch {
		case errors.Is(err, os.ErrNotExist):
			continue // gone since, or a link without IPv6
		case err != nil:
			return plan6{}, err
		}
		if note != "" && !known[l.name] {
			p.record = append(p.record, nft.Element{Key: ifname(l.name), Comment: note})
		}
		p.writes = append(p.writes, w...)
	}
	if !force && !ours {
		if !known[all] {
			p.record = append(p.record, nft.Element{Key: ifname(all), Comment: noteAll})
		}
		// Last: from now on accept_ra 1 means no.
		p.writes = append(p.writes, write{link: all, name: forwarding6, value: "1"})
	}
	return p, nil
}

// planForce switches on one link.
func planForce(link string) (note string, w []write, err error) {
	v, err := read6(link, forceForwarding)
	if err != nil || v != "0" {
		return "", nil, err
	}
	return noteForce, []write{{link: link, name: forceForwarding, value: "1", optional: true}}, nil
}

// planForward prepares a link for the global switch: where the link takes router
// advertisements, it shall go on to. A network's own link is no uplink. A late
// link came after the switch, and forwards because of it.
func planForward(link string, own, late bool) (note string, w []write, err error) {
	forward, err := read6(link, forwarding6)
	if err != nil {
		return "", nil, err
	}
	if forward != "0" && !late {
		return noteForward, nil, nil
	}
	ra, err := read6(link, acceptRA)
	if err != nil {
		return "", nil, err
	}
	if ra == "1" && !own {
		return noteRA, []write{{link: link, name: acceptRA, value: "2", optional: true}}, nil
	}
	return noteFlipped, nil, nil
}

// restore6 returns what sets the links in flipped6 back.
func restore6(elems []nft.Element) (w []write) {
	after := []write(nil)
	for _, e := range elems {
		name := nameOf(e.Key)
		for note := range strings.FieldsSeq(e.Comment) {
			switch note {
			case noteAll: // first, because it sets every link
				w = append(w, write{link: all, name: forwarding6, value: "0"})
			case noteForce:
				after = append(after, write{link: name, name: forceForwarding, value: "0", optional: true})
			case noteForward:
				after = append(after, write{link: name, name: forwarding6, value: "1", optional: true})
			case noteRA:
				after = append(after, write{link: name, name: acceptRA, value: "1", optional: true})
			}
		}
	}
	return append(w, after...)
}

// reapply6 returns what makes the links in flipped6 forward.
func reapply6(elems []nft.Element) (w []write) {
	var last []write
	for _, e := range elems {
		name := nameOf(e.Key)
		for note := range strings.FieldsSeq(e.Comment) {
			switch note {
			case noteAll:
				last = append(last, write{link: all, name: forwarding6, value: "1"})
			case noteForce:
				w = append(w, write{link: name, name: forceForwarding, value: "1", optional: true})
			case noteRA:
				w = append(w, write{link: name, name: acceptRA, value: "2", optional: true})
			}
		}
	}
	return append(w, last...)
}

// writeAll writes the settings, in order.
func writeAll(ctx context.Context, ns *netns.NS, writes []write) error {
	if len(writes) == 0 {
		return nil
	}
	_, err := netns.Do(ctx, ns, func(context.Context) (struct{}, error) {
		for _, w := range writes {
			// Opened without O_CREATE: a missing file is a link that is gone.
			f, err := os.OpenFile(conf6+w.link+"/"+w.name, os.O_WRONLY, 0)
			if err == nil {
				_, err = f.WriteString(w.value)
				err = errors.Join(err, f.Close())
			}
			if err != nil && !(w.optional && errors.Is(err, os.ErrNotExist)) {
				return struct{}{}, fmt.Errorf("setting net.ipv6.conf.%s.%s to %s: %w", w.link, w.name, w.value, err)
			}
		}
		return struct{}{}, nil
	})
	return err
}

func read6(link, name string) (string, error) {
	b, err := os.ReadFile(conf6 + link + "/" + name)
	return strings.TrimSpace(string(b)), err
}
