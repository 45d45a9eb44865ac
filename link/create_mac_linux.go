package link

import (
	"crypto/rand"
	"net"
)

// drawMACs gives each end of the link that is to be made an address, where the
// kernel would draw one.
//
// p is the other end of a pair, or nil.
func (s *Spec) drawMACs(p *Spec) {
	if !hasOwnMAC(s.Kind) {
		return
	}
	if s.MAC == nil {
		s.MAC = randomMAC()
	}
	if p != nil && p.MAC == nil {
		p.MAC = randomMAC()
	}
}

// randomMAC draws a unicast address of those that are free for local use.
func randomMAC() net.HardwareAddr {
	mac := make(net.HardwareAddr, 6)
	rand.Read(mac) // never fails
	mac[0] = mac[0]&^1 | 2
	return mac
}
