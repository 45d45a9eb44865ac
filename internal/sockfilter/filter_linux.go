package sockfilter

import (
	"encoding/binary"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// Nothing makes a socket receive nothing.
func Nothing(fd int) error { return attach(fd, []unix.SockFilter{reject}) }

// Only makes a socket receive only packets for one IPv6 address.
func Only(fd int, a netip.Addr) error { return attach(fd, only(a)) }

var (
	reject = unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K}
	accept = unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 1 << 18}
)

// only compares the destination address in the IP header, four bytes at a time.
func only(a netip.Addr) (f []unix.SockFilter) {
	const netOff, dst = 0xfff00000, 24 // SKF_NET_OFF (linux/filter.h)
	b := a.As16()
	for i := range 4 {
		f = append(f,
			unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: netOff + dst + uint32(4*i)},
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: binary.BigEndian.Uint32(b[4*i:]), Jf: uint8(2*(3-i) + 1)})
	}
	return append(f, accept, reject)
}

func attach(fd int, filter []unix.SockFilter) error {
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	return os.NewSyscallError("setsockopt", unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &prog))
}
