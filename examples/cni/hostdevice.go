//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns"
)

// sysfs is where the kernel describes the host's devices.
const sysfs = "/sys"

// A device is where the host's device is, as the configuration says it.
type device struct {
	name  string // of its link
	mac   net.HardwareAddr
	dir   string // that has a file for each of its links
	space bool   // a driver of user space has it, so that it has no link
}

// findDevice reads which device it is: that of the runtime before those of the keys.
func (c *config) findDevice(sysfs string) (device, error) {
	pci, id := c.PCIBusID, c.RuntimeConfig.DeviceID
	if id != "" {
		if strings.Contains(id, "/") {
			return device{}, invalid("deviceID is no device", fmt.Sprintf("%q", id))
		}
		auxiliary := filepath.Join(sysfs, "bus/auxiliary/devices", id)
		_, err := os.Stat(auxiliary)
		_, perr := os.Stat(filepath.Join(sysfs, "bus/pci/devices", id))
		switch {
		case perr == nil:
			pci = id
		case err == nil && c.Device == "" && c.HWAddr == "" && c.KernelPath == "":
			return device{dir: filepath.Join(auxiliary, "net")}, nil
		case err != nil:
			return device{}, invalid("deviceID is no device", fmt.Sprintf("%s is on the bus neither of PCI nor of auxiliary devices", id))
		}
	}
	bus := filepath.Join(sysfs, "bus/pci/devices", pci)
	if pci != "" {
		if strings.Contains(pci, "/") {
			return device{}, invalid("pciBusID is no device", fmt.Sprintf("%q", pci))
		}
		driver, err := filepath.EvalSymlinks(filepath.Join(bus, "driver"))
		if err != nil {
			return device{}, invalid("pciBusID is no device with a driver", oneLine(err))
		}
		if slices.Contains([]string{"vfio-pci", "uio_pci_generic", "igb_uio"}, filepath.Base(driver)) {
			return device{space: true}, nil
		}
	}
	switch {
	case c.Device != "":
		return device{name: c.Device}, nil
	case c.HWAddr != "":
		mac, err := net.ParseMAC(c.HWAddr)
		if err != nil {
			return device{}, invalid("hwaddr is no hardware address", fmt.Sprintf("%q", c.HWAddr))
		}
		return device{mac: mac}, nil
	case c.KernelPath != "":
		if !strings.HasPrefix(filepath.Clean(c.KernelPath), "/sys/devices/") {
			return device{}, invalid("kernelpath is not below /sys/devices", fmt.Sprintf("%q", c.KernelPath))
		}
		return device{dir: filepath.Join(c.KernelPath, "net")}, nil
	case pci != "":
		dir := filepath.Join(bus, "net")
		if _, err := os.Stat(dir); err != nil {
			if virtio, _ := filepath.Glob(filepath.Join(bus, "virtio*", "net")); len(virtio) > 0 {
				dir = virtio[0]
			}
		}
		return device{dir: dir}, nil
	}
	return device{}, invalid("host-device needs device, hwaddr, kernelpath or pciBusID", "")
}

// link is the device's link on the host.
func (d device) link(ctx context.Context, host *netns.NS) (link.Link, error) {
	name := d.name
	switch {
	case d.mac != nil:
		all, err := link.ListByMAC(ctx, host, d.mac)
		if err == nil && len(all) == 0 {
			err = fmt.Errorf("no link has the hardware address %v: %w", d.mac, os.ErrNotExist)
		}
		if err != nil {
			return link.Link{}, err
		}
		return all[0], nil
	case d.dir != "":
		files, err := os.ReadDir(d.dir)
		if err == nil && len(files) == 0 {
			err = fmt.Errorf("%s is empty: %w", d.dir, os.ErrNotExist)
		}
		if err != nil {
			return link.Link{}, err
		}
		name = files[0].Name()
	}
	return link.Get(ctx, host, name)
}

// moveIn moves the host's device into the container. Its alias is its name on the
// host, and behind it the alias that it had. In one message the kernel moves and
// renames, so that the name may exist on the host.
func (r *request) moveIn(ctx context.Context, box *netns.NS, l *lease, made *bool) (link.Link, error) {
	dev, err := r.conf.findDevice(sysfs)
	if err != nil || dev.space {
		return link.Link{}, err
	}
	at, err := dev.link(ctx, r.host)
	if err != nil {
		return at, invalid("the host has no such device", oneLine(err))
	}
	d, err := at.Details(ctx)
	if err != nil {
		return at, failed("reading the host's device", err)
	}
	if owner, _, ours := parseAlias(d.Spec.Alias); ours {
		return at, invalid("the device is a link of this plugin", owner)
	}
	had := d.Spec.Alias
	if had == at.Name { // a killed ADD has left it
		had = ""
	}
	if err := at.SetAlias(ctx, strings.TrimSpace(at.Name+" "+had)); err != nil {
		return at, failed("noting the device's name", err)
	}
	of := loan{Name: at.Name, Alias: had, Kind: at.Kind}
	if err := r.note(&of); err != nil { // before the device goes: a killed ADD gives it back, too
		return at, errors.Join(err, at.SetAlias(ctx, had))
	}
	eth, err := at.Move(ctx, box, link.MoveOptions{Name: r.at.ifname, Up: true})
	if err != nil {
		return at, errors.Join(failed("moving the device into the container", err), at.SetAlias(ctx, had), r.note(nil))
	}
	*made, r.wasUp = true, at.Up
	now, err := link.ByIndex(ctx, box, eth.Index)
	if err != nil {
		return eth, failed("reading the container's link", err)
	}
	of = of.at(now)
	if err := r.note(&of); err != nil {
		return eth, err
	}
	if len(l.addrs) > 0 {
		if err := eth.AddPrefixes(ctx, l.addrs...); err != nil {
			return eth, failed("giving the container's link its addresses", err)
		}
	}
	return eth, nil
}

// givenBack gives a device its name back that the kernel has moved to the host with
// the end of the container's namespace, and takes the alias away that an ADD has left
// that was killed.
func (r *request) givenBack(ctx context.Context) error {
	if r.conf.Device == "" {
		return nil
	}
	all, err := link.List(ctx, r.host, link.Filter{})
	if err != nil {
		return failed("looking for the device", err)
	}
	for _, l := range all {
		if l.Name != r.conf.Device {
			continue
		}
		d, err := l.Details(ctx)
		if err == nil && d.Spec.Alias == l.Name {
			err = l.SetAlias(ctx, "")
		}
		return failed("looking at the device", netns.IgnoreNotExist(err))
	}
	for _, l := range all {
		d, err := l.Details(ctx)
		if err != nil {
			continue // gone meanwhile
		}
		if name, alias, _ := strings.Cut(d.Spec.Alias, " "); name == r.conf.Device {
			if l, err = l.Update(ctx, link.Spec{Name: name}); err == nil {
				err = l.SetAlias(ctx, alias)
			}
			return failed("giving the device its name back", err)
		}
	}
	return nil
}
