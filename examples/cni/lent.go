//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns"
)

// lentFile lists the host's devices that containers have. A container that may change its links
// can give any of them the name and the alias of the device, so that these say nothing.
const lentFile = runDir + "/lent"

// A loan is a device in a container.
type loan struct {
	Owner string `json:"owner"`
	Host  uint64 `json:"host"` // inode of the namespace that it is from
	Boot  string `json:"boot"` // of the machine, since inodes are used again
	Name  string `json:"name"` // on the host, with its alias there
	Alias string `json:"alias"`

	// What the container cannot choose, unless it has deleted the device: its index in the container, which
	// is 0 until it is there, its kind, and the other end or the parent.
	Index  int    `json:"index"`
	Kind   string `json:"kind"`
	Peer   int    `json:"peer"`
	Parent int    `json:"parent"`
	NSID   int    `json:"nsid"` // of the other end's namespace
}

// at is the loan of a device that is a link of the container.
func (o loan) at(l link.Link) loan {
	o.Index, o.Kind, o.Peer, o.Parent, o.NSID = l.Index, l.Kind, l.PeerIndex, l.ParentIndex, l.LinkNSID
	return o
}

// is says whether a link of the container is the device. Where the ADD was killed before it noted which link
// that is, the kind has to do.
func (o loan) is(l link.Link) bool {
	return o == o.at(l) || o.Index == 0 && o.Kind == l.Kind
}

// loans reads the list, without those from before the machine's last start. To change it takes the lock.
func loans() (all []loan, err error) {
	b, err := os.ReadFile(lentFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if json.Unmarshal(b, &all) != nil {
		return nil, nil
	}
	boot, err := bootID()
	return slices.DeleteFunc(all, func(o loan) bool { return o.Boot != boot }), err
}

// lent is what the attachment has of the host.
func (r *request) lent() (of loan, noted bool, err error) {
	all, err := loans()
	i := slices.IndexFunc(all, r.isMine)
	if i < 0 {
		return loan{}, false, err
	}
	return all[i], true, err
}

func (r *request) isMine(o loan) bool { return o.Owner == r.at.owner() && o.Host == r.host.ID().Ino }

// note notes what the attachment has of the host; nil is nothing any more.
func (r *request) note(of *loan) error {
	return r.changeLoans(r.isMine, of)
}

// changeLoans removes loans from the list, and adds one.
func (r *request) changeLoans(gone func(loan) bool, of *loan) error {
	const doing = "noting the host's devices that containers have"
	unlock, err := lock()
	if err != nil {
		return err
	}
	defer unlock()
	all, err := loans()
	if err != nil {
		return failed(doing, err)
	}
	n := len(all)
	all = slices.DeleteFunc(all, gone)
	if of == nil && len(all) == n {
		return nil
	}
	if of != nil {
		of.Owner, of.Host = r.at.owner(), r.host.ID().Ino
		if of.Boot, err = bootID(); err != nil {
			return err
		}
		all = append(all, *of)
	}
	return failed(doing, saveList(lentFile, all))
}

// takeBack moves the device out of the container, to the host, with the name and the alias that it had there.
// It is down there, unless the ADD is being undone. The kernel may have given it back itself.
func (r *request) takeBack(ctx context.Context, box *netns.NS) error {
	of, noted, err := r.lent()
	if err != nil {
		return failed("reading which device the container has", err)
	}
	l, found, err := r.findLent(ctx, box, &of, noted)
	if err != nil {
		return failed("looking for the device", err)
	}
	if !found {
		err = r.givenBack(ctx)
	} else {
		err = r.moveOut(ctx, l, of)
	}
	if err != nil || !noted {
		return err
	}
	return r.note(nil)
}

// findLent finds the device in the container. Without a note, as the reference plugin leaves none, it is a link of
// hardware, which no container makes, and its alias says its name unless the configuration does.
func (r *request) findLent(ctx context.Context, box *netns.NS, of *loan, noted bool) (l link.Link, found bool, err error) {
	if noted && of.Index != 0 {
		l, err = link.ByIndex(ctx, box, of.Index)
	} else {
		l, err = link.Get(ctx, box, r.at.ifname)
	}
	if err != nil {
		return l, false, netns.IgnoreNotExist(err)
	}
	if noted {
		return l, of.is(l), nil
	}
	d, err := l.Details(ctx)
	if err != nil {
		return l, false, netns.IgnoreNotExist(err)
	}
	of.Name, of.Alias, _ = strings.Cut(d.Spec.Alias, " ")
	if r.conf.Device != "" {
		of.Name = r.conf.Device
	}
	_, _, other := parseAlias(d.Spec.Alias)
	return l, l.Kind == "" && !other && isUsableName(of.Name), nil
}

// moveOut moves the device back. Alternative names that the host has links by cannot go with it.
func (r *request) moveOut(ctx context.Context, l link.Link, of loan) error {
	move := func() (link.Link, error) {
		return l.Move(ctx, r.host, link.MoveOptions{Name: of.Name, Up: r.wasUp})
	}
	back, err := move()
	if errors.Is(err, os.ErrExist) {
		d, derr := l.Details(ctx)
		taken := slices.DeleteFunc(d.Spec.AltNames, func(name string) bool {
			_, err := link.Get(ctx, r.host, name)
			return errors.Is(err, os.ErrNotExist)
		})
		if derr == nil && len(taken) > 0 && l.DeleteAltNames(ctx, taken...) == nil {
			back, err = move()
		}
	}
	if err != nil {
		return failed("moving the device back to the host", err)
	}
	return failed("giving the device its alias back", back.SetAlias(ctx, of.Alias))
}
