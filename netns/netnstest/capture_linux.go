package netnstest

import (
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// maxCapture bounds the packets that are kept, in bytes.
const maxCapture = 16 << 20

// capture reads a packet socket.
type capture struct {
	linkType uint32
	file     *os.File
	raw      syscall.RawConn
	done     chan struct{}

	buf     []byte // the following fields are the reader's until done is closed
	packets []packet
	size    int
}

func startCapture(t testing.TB, ns *netns.NS, link string) *capture {
	t.Helper()
	w := wiring{t: t, ctx: t.Context()}
	index := w.link(ns, link).Index
	f, err := ns.Socket(t.Context(), unix.AF_PACKET, unix.SOCK_RAW, 0)
	if err != nil {
		t.Fatalf("netnstest: capturing %s: %v", link, err)
	}
	c := &capture{linkType: linkEthernet, file: f, done: make(chan struct{}), buf: make([]byte, 1<<18)}
	if c.raw, err = f.SyscallConn(); err == nil {
		cerr := c.raw.Control(func(fd uintptr) { err = c.bind(int(fd), index) })
		if err == nil {
			err = cerr
		}
	}
	if err != nil {
		f.Close()
		t.Fatalf("netnstest: capturing %s: %v", link, err)
	}
	go c.run()
	return c
}

// bind begins to receive what goes in and out of the link.
func (c *capture) bind(fd, index int) error {
	const all = unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8 // in network byte order
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: index}); err != nil {
		return os.NewSyscallError("bind", err)
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 1<<22)
	sa, err := unix.Getsockname(fd)
	if ll, ok := sa.(*unix.SockaddrLinklayer); ok {
		switch ll.Hatype {
		case unix.ARPHRD_NONE, unix.ARPHRD_TUNNEL, unix.ARPHRD_TUNNEL6, unix.ARPHRD_SIT, unix.ARPHRD_IPGRE:
			c.linkType = linkRaw
		}
	}
	return os.NewSyscallError("getsockname", err)
}

// run reads until stop sets the deadline, and then what is there still.
func (c *capture) run() {
	defer close(c.done)
	for {
		var rerr error
		err := c.raw.Read(func(fd uintptr) bool {
			rerr = c.drain(int(fd))
			return rerr != unix.EAGAIN
		})
		// A link that goes down says so once.
		if err != nil || rerr != unix.ENETDOWN {
			break
		}
	}
	_ = c.raw.Control(func(fd uintptr) { c.drain(int(fd)) })
}

// drain reads until there is an error: EAGAIN when nothing is left.
func (c *capture) drain(fd int) error {
	for {
		n, from, err := unix.Recvfrom(fd, c.buf, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		// Loopback shows every packet going out and coming in.
		ll, ok := from.(*unix.SockaddrLinklayer)
		if ok && ll.Hatype == unix.ARPHRD_LOOPBACK && ll.Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		c.keep(packet{time.Now(), slices.Clone(c.buf[:n])})
	}
}

// keep forgets the oldest packets beyond the limit.
func (c *capture) keep(p packet) {
	c.packets = append(c.packets, p)
	c.size += len(p.data)
	for c.size > maxCapture {
		c.size -= len(c.packets[0].data)
		c.packets = c.packets[1:]
	}
}

// stop ends the capture and returns what it has kept.
func (c *capture) stop() []packet {
	c.file.SetReadDeadline(time.Unix(1, 0))
	<-c.done
	c.file.Close()
	return c.packets
}
