package link

import (
	"crypto/rand"
	"net"
)

// drawMACs gives each end of the link that is to be made an address, where the
// kernel would draw one.
func (s *Spec) drawMACs() {
	if !hasOwnMAC(s.Kind) {
		return
	}
	if s.MAC == nil {
		s.MAC = randomMAC()
	}
	if p := pairOf(s.Kind); p != nil && p.MAC == nil {
		p.MAC = randomMAC()
		s.Kind = withPeer(s.Kind, *p)
	}
}

// randomMAC draws a unicast address of those that are free for local use.
func randomMAC() net.HardwareAddr {
	mac := make(net.HardwareAddr, 6)
	rand.Read(mac) // never fails
	mac[0] = mac[0]&^1 | 2
	return mac
}
