package link

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"unsafe"

	"github.com/boxwire/boxwire/internal/fail"
	"github.com/boxwire/boxwire/internal/privilege"
	"github.com/boxwire/boxwire/internal/refuse"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

const tunDevice = "/dev/net/tun"

// OpenTun makes a TUN or TAP device, a link of kind [Tun], and returns its queues:
// one, or with Tun.MultiQueue up to 256. Each queue is a descriptor. A call to its
// Read or Write moves one packet, and deadlines work. The caller closes the
// descriptors; they stay attached when the link is moved.
//
//	l, queues, err := link.OpenTun(ctx, ns, link.Spec{Name: "tun0", Up: true, Kind: link.Tun{}}, 1)
//	n, err := queues[0].Read(packet)
//
// Otherwise it does what [Create] does. Without /dev/net/tun or the module tun the
// error is errors.ErrUnsupported.
func OpenTun(ctx context.Context, ns *netns.NS, spec Spec, queues int) (Link, []*os.File, error) {
	c := creation{op: "link.OpenTun", ctx: ctx, home: nsConn{ns: ns}, end: end{name: spec.Name}, queues: queues}
	k, ok := spec.Kind.(Tun)
	switch {
	case !ok:
		return Link{}, nil, c.fail(refuse.Input("Kind is a %T, not a link.Tun", spec.Kind))
	case queues < 1 || queues > 256:
		return Link{}, nil, c.fail(refuse.Input("%d queues are out of range (1 to 256)", queues))
	case queues > 1 && !k.MultiQueue:
		return Link{}, nil, c.fail(refuse.Input("%d queues need MultiQueue", queues))
	}
	l, err := c.run(&spec)
	if err != nil {
		return Link{}, nil, err
	}
	return l, c.files, nil
}

// OpenQueues attaches to a TUN or TAP device and returns that many descriptors; see
// [OpenTun]. Without Tun.MultiQueue a device has one, and os.ErrExist means that it
// is in use. A link of another kind is os.ErrInvalid.
func (l Link) OpenQueues(ctx context.Context, queues int) ([]*os.File, error) {
	const op = "link.OpenQueues"
	d, err := l.Details(ctx)
	if err != nil {
		return nil, err
	}
	k, ok := d.Spec.Kind.(Tun)
	if !ok {
		return nil, fail.New(op, l.ns, l.subject(), refuse.Input("the link is of kind %q, not a TUN or TAP device", d.Kind))
	}
	if queues < 1 || queues > 1 && !k.MultiQueue {
		return nil, fail.New(op, l.ns, l.subject(), refuse.Input("the device has no %d queues to open", queues))
	}
	files, err := openQueues(ctx, l.ns, device{name: d.Name, kind: k}, queues)
	if errors.Is(err, unix.EBUSY) {
		err = exist(err, "the device is in use")
	}
	return files, fail.New(op, l.ns, l.subject(), err)
}

// checkNew refuses a device that would be deleted at once, and queues that it cannot
// have. queues are those that the call returns.
func (k Tun) checkNew(queues, txQueues, rxQueues int) error {
	switch {
	case queues == 0 && !k.Persist:
		return refuse.Input("a Tun without Persist lives as long as its descriptors: use OpenTun")
	case txQueues != 0 || rxQueues != 0:
		return refuse.Input("a Tun has as many queues as descriptors: TxQueues and RxQueues must be 0")
	}
	return nil
}

// openTun makes the link by ioctls on the descriptors of its queues.
func (c *creation) openTun(d device) error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	var err error
	c.files, err = openQueues(context.WithoutCancel(c.ctx), c.end.ns, d, max(c.queues, 1))
	switch {
	case errors.Is(err, unix.EBUSY), errors.Is(err, unix.EEXIST), errors.Is(err, unix.EINVAL):
		if c.end.holder(c.ctx, c.end.name) != nil {
			return exist(err, "the name %s is taken in netns %s", c.end.name, c.end.ns)
		}
		return cmp.Or(c.end.indexTaken(c.ctx, "index", err), err)
	case err == nil:
		c.made = true
	}
	return err
}

// persist makes a new device outlive its descriptors, and closes the one that was
// not asked for.
func (c *creation) persist() error {
	if err := persist(c.files[0]); err != nil {
		return err
	}
	if c.queues == 0 {
		c.files[0].Close()
		c.files = nil
	}
	return nil
}

// device is a TUN or TAP device that descriptors are opened of.
type device struct {
	name string
	kind Tun

	create bool             // the first descriptor makes it
	index  int              // of a new one; 0 lets the kernel choose
	mac    net.HardwareAddr // of a new one; nil for a TUN device
}

// openQueues opens descriptors of the device.
func openQueues(ctx context.Context, ns *netns.NS, d device, queues int) ([]*os.File, error) {
	// A descriptor belongs to the namespace that it was opened in.
	fds, err := netns.Do(ctx, ns, func(context.Context) (fds []int, err error) {
		for range queues {
			fd, err := unix.Open(tunDevice, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
			if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO) {
				err = &causeError{text: "it is missing, or the kernel's module tun: " + err.Error(), is: errors.ErrUnsupported, err: err}
			}
			if errors.Is(err, unix.EACCES) {
				err = privilege.Explain(err, privilege.DACOverride.Missing())
			}
			if err != nil {
				return fds, fmt.Errorf("opening %s: %w", tunDevice, err)
			}
			fds = append(fds, fd)
		}
		return fds, nil
	})
	for _, fd := range fds {
		if err == nil {
			err = d.attach(fd)
			d.create = false
			if errors.Is(err, unix.EPERM) {
				err = privilege.Explain(err, privilege.NetAdmin.MissingIn(ns))
			}
		}
	}
	var files []*os.File
	for _, fd := range fds {
		if err != nil {
			unix.Close(fd)
			continue
		}
		// Only once it is attached: until then the kernel reports an error to
		// a poller, and Go's would remember it.
		files = append(files, os.NewFile(uintptr(fd), tunDevice))
	}
	return files, err
}

// persist makes the device outlive its last descriptor.
func persist(f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	cerr := raw.Control(func(fd uintptr) { err = unix.IoctlSetInt(int(fd), unix.TUNSETPERSIST, 1) })
	return errors.Join(os.NewSyscallError("TUNSETPERSIST", err), cerr)
}

// attach makes the descriptor a queue of the device.
func (d *device) attach(fd int) error {
	req, err := unix.NewIfreq(d.name)
	if err != nil {
		return err
	}
	k := d.kind
	flags := uint16(unix.IFF_TUN)
	if k.Tap {
		flags = unix.IFF_TAP
	}
	for _, b := range []struct {
		on  bool
		bit uint16
	}{
		{!k.PacketInfo, unix.IFF_NO_PI}, {k.VirtioHeader, unix.IFF_VNET_HDR},
		{k.MultiQueue, unix.IFF_MULTI_QUEUE}, {d.create, unix.IFF_TUN_EXCL},
	} {
		if b.on {
			flags |= b.bit
		}
	}
	req.SetUint16(flags)
	if d.create && d.index != 0 {
		if err := unix.IoctlSetPointerInt(fd, unix.TUNSETIFINDEX, d.index); err != nil {
			return fmt.Errorf("TUNSETIFINDEX: %w", err)
		}
	}
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		return fmt.Errorf("TUNSETIFF: %w", err)
	}
	if !d.create {
		return nil
	}
	// Before anything else: the kernel has drawn an address, and systemd-udevd has been told
	// of the device. It replaces an address that it finds drawn.
	if k.Tap {
		if err := setDeviceMAC(fd, d.mac); err != nil {
			return fmt.Errorf("SIOCSIFHWADDR: %w", err)
		}
	}
	if k.Owner != nil {
		if err := unix.IoctlSetInt(fd, unix.TUNSETOWNER, int(*k.Owner)); err != nil {
			return fmt.Errorf("TUNSETOWNER: %w", err)
		}
	}
	if k.Group != nil {
		if err := unix.IoctlSetInt(fd, unix.TUNSETGROUP, int(*k.Group)); err != nil {
			return fmt.Errorf("TUNSETGROUP: %w", err)
		}
	}
	return nil
}

// setDeviceMAC sets the hardware address of the TAP device that the descriptor is
// attached to.
func setDeviceMAC(fd int, mac net.HardwareAddr) error {
	var req struct { // struct ifreq
		name   [unix.IFNAMSIZ]byte
		family uint16
		data   [22]byte
	}
	req.family = unix.ARPHRD_ETHER
	copy(req.data[:], mac)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCSIFHWADDR, uintptr(unsafe.Pointer(&req))); errno != 0 {
		return errno
	}
	return nil
}
